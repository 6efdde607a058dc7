# `make demo` shows memlint at work; `make test` runs everything CI runs. Both make .venv first and repeat nothing.

# The torch of the tests. With no version pinned, pip takes the newest build and gigabytes of CUDA packages with it.
TORCH_SPEC ?= torch==2.13.0
# The Python of .venv: the first one that is 3.10 or newer and can make virtual environments.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3.10 python3 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
# A stamp says what was installed; it is older than the file that asks for something else.
INSTALLED := $(VENV)/.installed
TORCH_INSTALLED := $(VENV)/.torch-$(shell printf '%s' '$(TORCH_SPEC)' | cksum | cut -d' ' -f1)
TEST_INSTALLED := $(VENV)/.test-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# Where `make bench` finds, or puts, the packages of benchmarks/corpus.toml.
CORPUS ?= corpus
PEERS := $(VENV)-peers

.PHONY: demo test test-vscode test-gpu install format clean bench

demo: $(INSTALLED)
	@echo '--- memlint check fixtures/demo'
	@$(BIN)/memlint check fixtures/demo || [ $$? -eq 1 ]
	@echo '--- memlint fix fixtures/demo'
	@$(BIN)/memlint fix fixtures/demo || [ $$? -eq 1 ]

test: $(TEST_INSTALLED) $(TORCH_INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -n auto --dist loadfile

# The VS Code extension: types, linter, unit tests, and the .vsix. Needs npm.
test-vscode:
	cd editors/vscode && npm ci --no-audit --no-fund --loglevel=error && npm run package

# Wants a GPU, and a Python with a CUDA build of torch, memlint's dependencies, pytest and nvidia-ml-py:
# `make test-gpu GPU_PYTHON=python3` takes the machine's own; it installs nothing there.
GPU_PYTHON ?= $(BIN)/python
test-gpu:
	$(GPU_PYTHON) -m pytest tests_gpu -rs

install: $(INSTALLED)

format: $(TEST_INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Writes benchmarks/speed.md, in a quarter of an hour; BENCH=--small tries every part in two minutes and writes nothing.
# The peers have an environment of their own: TorchFix wants an older LibCST.
bench: $(TEST_INSTALLED) $(PEERS)/.installed
	$(BIN)/python benchmarks/corpus.py download $(CORPUS)
	$(BIN)/python benchmarks/bench.py $(CORPUS) --peers $(PEERS)/bin $(BENCH)

$(PEERS)/.installed:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet \
		torchfix==0.7.0 'fixit>=2.1' 'pylint>=3' 'perflint>=0.8' 'ruff>=0.17'
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo 'no Python >= 3.10 with venv and ensurepip found; name one: make PYTHON=/path/to/python3'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml setup.py | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(TEST_INSTALLED): pyproject.toml setup.py | $(BIN)/python
	$(PIP) --editable '.[test]'
	@touch $@ $(INSTALLED)

$(TORCH_INSTALLED): | $(BIN)/python
	$(PIP) '$(TORCH_SPEC)'
	@touch $@
