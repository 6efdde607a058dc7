"""Run training and evaluation scripts that nobody here wrote under `memlint measure`, unmodified and offline.

    python benchmarks/measure_targets.py SOURCES [--only NAME] [--backend cpu] [--backend fake]

SOURCES holds the source distributions named in benchmarks/corpus.toml (`benchmarks/corpus.py download SOURCES`). This
Python's environment has memlint and what the scripts import: accelerate, datasets, gymnasium, opacus, pytorch-ignite,
torch, transformers, trl. The scripts get small data and models that are made here. Prints the rows of
benchmarks/measure_targets.md.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WORDS = "the a model memory gradient tensor keeps frees loss step batch small large fast slow and or of in on".split()
TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Program:
    """A script: `target` is what `memlint measure` gets, with {sources} and {data} filled in, then its arguments."""

    name: str
    origin: str
    target: str
    arguments: str = ""


_TRL = (
    "--model_name_or_path {data}/model --output_dir {data}/out --per_device_train_batch_size 4 --max_steps 8 "
    "--report_to none --logging_steps 1 --max_length 32 --save_strategy no"
)

PROGRAMS = [
    Program("trl sft", "trl 1.16.0", "-m trl.scripts.sft", f"--dataset_name {{data}}/sft {_TRL}"),
    Program("trl dpo", "trl 1.16.0", "-m trl.scripts.dpo", f"--dataset_name {{data}}/dpo {_TRL}"),
    Program("trl reward", "trl 1.16.0", "-m trl.scripts.reward", f"--dataset_name {{data}}/reward {_TRL}"),
    Program("accelerate test_script", "accelerate 1.15.0", "-m accelerate.test_utils.scripts.test_script"),
    Program(
        "opacus char-lstm",
        "opacus 1.6.0 (sdist)",
        "{sources}/opacus-1.6.0/examples/char-lstm-classification.py",
        "--data-root {data}/names --batch-size 32 --epochs 2",
    ),
    Program(
        "opacus char-lstm without privacy",
        "opacus 1.6.0 (sdist)",
        "{sources}/opacus-1.6.0/examples/char-lstm-classification.py",
        "--data-root {data}/names --batch-size 32 --epochs 2 --disable-dp",
    ),
    Program(
        "ignite reinforce",
        "pytorch-ignite 0.5.5 (sdist)",
        "{sources}/pytorch-ignite-0.5.5/examples/reinforcement_learning/reinforce.py",
        "--max-episodes 12",
    ),
    Program(
        "ignite actor_critic",
        "pytorch-ignite 0.5.5 (sdist)",
        "{sources}/pytorch-ignite-0.5.5/examples/reinforcement_learning/actor_critic.py",
        "--max-episodes 12",
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sources", type=Path)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--backend", action="append", choices=["cpu", "fake", "cuda"], help="[default: cpu and fake]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        make_data(data)
        for program in PROGRAMS:
            if given.only and program.name not in given.only:
                continue
            for backend in given.backend or ["cpu", "fake"]:
                print(row(program, backend, given.sources.resolve(), data), flush=True)


def row(program: Program, backend: str, sources: Path, data: Path) -> str:
    places = {"sources": sources, "data": data}
    target = program.target.format(**places)
    arguments = program.arguments.format(**places).split()
    words = ["-m", target.removeprefix("-m ")] if target.startswith("-m ") else [target]
    command = [sys.executable, "-m", "memlint", "measure", "--backend", backend, "--output-format", "json"]
    command += ["--timeout", str(TIMEOUT_SECONDS), *words, "--", *arguments]
    start = time.monotonic()
    done = subprocess.run(command, cwd=data, capture_output=True, text=True, check=False)
    seconds = f"{time.monotonic() - start:.0f} s"
    cells = [program.name, program.origin, backend, *_outcome(done), seconds]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _outcome(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    """Whether it worked, and the peak with its largest part, or why not."""
    start = done.stdout.find('{\n  "schema_version"')
    if done.returncode != 0 or start < 0:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("error:")] or done.stderr.splitlines()[
            -3:
        ]
        return "no", " ".join(reasons)[:300]
    found, _ = json.JSONDecoder().raw_decode(done.stdout[start:])
    largest = max(found["categories"].items(), key=lambda item: item[1])
    peak = f"{found['peak_allocated_bytes'] / 2**20:.2f} MiB"
    return "yes", f"{peak}, most of it {largest[0]}; {found['steps']} steps, {len(found['assumptions'])} assumptions"


# --- small data and models ---


def make_data(folder: Path) -> None:
    rng = random.Random(0)
    _write_names(folder / "names", rng)
    _write_rows(folder / "sft", [{"text": _sentence(rng)} for _ in range(64)])
    pairs = [{"prompt": _sentence(rng), "chosen": _sentence(rng), "rejected": _sentence(rng)} for _ in range(64)]
    _write_rows(folder / "dpo", pairs)
    _write_rows(folder / "reward", [{"chosen": _sentence(rng), "rejected": _sentence(rng)} for _ in range(64)])
    _write_model(folder / "model")


def _sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=12))


def _write_names(folder: Path, rng: random.Random) -> None:
    """A file of names for each language, as the character model wants them."""
    folder.mkdir()
    for language in ("Elvish", "Dwarvish", "Entish"):
        names = ["".join(rng.choices("aeioulmnrst", k=rng.randint(4, 9))).title() for _ in range(200)]
        (folder / f"{language}.txt").write_text("\n".join(names))


def _write_rows(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _write_model(folder: Path) -> None:
    """A Llama of two layers with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(vocabulary), **sizes, pad_token_id=0, eos_token_id=1)
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    main()
