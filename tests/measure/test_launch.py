"""Running targets in a process of their own: what comes back, and what is kept from them."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memlint.measure.job import Job, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Outcome, Status
from memlint.measure.worker.imports import Sources
from memlint.measure.worker.targets import NoSuchTarget, import_function, run_main

TRAINING = """\
import torch

model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(20):
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""

Runner = Callable[..., Outcome]


@pytest.fixture
def ran(tmp_path: Path) -> Runner:
    """Runs a script's text with the `cpu` backend."""

    def run_text(text: str, *arguments: str, **options: Any) -> Outcome:
        (tmp_path / "target.py").write_text(text, "utf-8")
        target = options.pop("target", Target("script", "target.py", arguments))
        job = Job(target, "cpu", str(tmp_path), **{"timeout_seconds": 60.0, **options})
        return run(job, "stderr")

    return run_text


def ended(outcome: Outcome) -> tuple[Status, str]:
    return outcome.status, outcome.message


# --- how a run ends ---


def test_a_training_script_is_stopped_after_the_wanted_steps(ran: Runner) -> None:
    outcome = ran(TRAINING, steps=4)
    assert ended(outcome) == (Status.OK, "")
    assert outcome.recording is not None and len(outcome.recording.steps) == 4
    assert outcome.host_peak_bytes is not None and outcome.host_peak_bytes > 2**20


def test_an_exception_comes_back_with_the_user_s_frames_only(ran: Runner, tmp_path: Path) -> None:
    outcome = ran("import torch\n\ndef fail():\n    return torch.ones(2) @ torch.ones(3)\n\nfail()\n")
    assert outcome.status is Status.USER_EXCEPTION
    assert outcome.message.startswith("RuntimeError: ")
    script = str(tmp_path / "target.py")
    assert [(frame.place.path, frame.place.line, frame.text) for frame in outcome.frames] == [
        (script, 6, "fail()"),
        (script, 4, "return torch.ones(2) @ torch.ones(3)"),
    ]


def test_a_syntax_error_names_its_line(ran: Runner, tmp_path: Path) -> None:
    outcome = ran("x = 1\ny = = 2\n")
    assert outcome.status is Status.USER_EXCEPTION
    assert [(frame.place.path, frame.place.line) for frame in outcome.frames] == [(str(tmp_path / "target.py"), 2)]


def test_an_exit_is_an_exception_unless_its_status_is_0(ran: Runner) -> None:
    usage = ran(
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('data')\nparser.parse_args()\n"
    )
    assert ended(usage) == (Status.USER_EXCEPTION, "the target exited with status 2")
    assert "after `--`" in usage.advice
    text = ran("import sys\nsys.exit('no data')\n")
    assert ended(text) == (Status.USER_EXCEPTION, "the target exited: no data")


OTHER_PROCESSES = """\
import os
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
asked = []
for ask in (
    lambda: mp.spawn(print),
    lambda: mp.start_processes(print),
    lambda: dist.init_process_group("nccl"),
    lambda: dist.init_process_group(backend="cpu:gloo,cuda:nccl"),
    lambda: torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2).cuda()),
):
    try:
        ask()
    except Exception as error:
        asked.append(type(error).__name__)
assert asked == ["Unsupported"] * 5, asked
mp.spawn(print)
"""


def test_only_one_process_is_measured_and_nobody_is_told_otherwise(ran: Runner) -> None:
    outcome = ran(OTHER_PROCESSES)
    assert outcome.status is Status.UNSUPPORTED, outcome
    assert "its own is measured" in outcome.message and "without its launcher" in outcome.advice
    assert outcome.frames[-1].text == "mp.spawn(print)"


def test_of_a_long_message_the_line_that_says_what_is_shown(ran: Runner) -> None:
    outcome = ran("raise RuntimeError('the size is wrong\\nRegistered at: somewhere\\n')\n")
    assert outcome.message == "RuntimeError: the size is wrong"


def test_a_target_without_steps_is_told_what_to_do(ran: Runner) -> None:
    outcome = ran("import sys\nprint('hello')\nsys.exit(0)\n")
    assert outcome.status is Status.NEVER_STEPPED
    assert "pkg.mod:function" in outcome.advice
    assert outcome.recording is None


def test_running_out_of_host_memory(ran: Runner) -> None:
    outcome = ran("import torch\nkept = torch.zeros(2**28)\n", host_memory_limit_bytes=2**28)
    assert outcome.status is Status.OUT_OF_MEMORY
    assert "--memory-limit" in outcome.message
    assert [frame.place.line for frame in outcome.frames] == [2]
    assert outcome.recording is not None


def test_a_process_ended_by_a_signal_names_the_line_where_it_can(ran: Runner, tmp_path: Path) -> None:
    aborted = ran("import os\ndef crash():\n    os.abort()\ncrash()\n")
    assert ended(aborted) == (Status.KILLED, "the target's process was ended by SIGABRT")
    assert [frame.place.line for frame in aborted.frames] == [4, 3]
    killed = ran("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert killed.status is Status.KILLED and "host memory" in killed.message
    left = ran("import os\nos._exit(3)\n")
    assert ended(left) == (Status.KILLED, "the target ended its own process with exit status 3")


def test_a_warning_of_torch_is_shown_at_the_line_that_it_is_about(
    ran: Runner, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran("import torch\nx = torch.ones(2, device='cuda')\ny = torch.tensor(x)\n")
    warned = [line for line in capfd.readouterr().err.splitlines() if "UserWarning: To copy construct" in line]
    assert [line.partition(": UserWarning")[0] for line in warned] == [f"{tmp_path / 'target.py'}:3"]


def test_a_timeout_ends_what_the_target_started_and_says_how_far_it_came(ran: Runner, tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    noted = tmp_path / "pid"
    outcome = ran(TRAINING + text, str(noted), steps=30, timeout_seconds=20.0, allow_write=True)
    assert ended(outcome) == (Status.TIMEOUT, "the target was stopped after 20 s: it had made 20 of 30 steps")
    assert "--timeout" in outcome.advice
    assert [frame.place.line for frame in outcome.frames] == [len(TRAINING.splitlines()) + 4]
    assert_gone(int(noted.read_text()))


def test_what_a_target_leaves_running_is_ended_and_not_waited_for(ran: Runner, tmp_path: Path) -> None:
    text = (
        "import os, sys, time\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    time.sleep(600)\n"
        "open(sys.argv[1], 'w').write(str(pid))\n"
    )
    noted = tmp_path / "pid"
    assert ran(text + TRAINING, str(noted), allow_write=True).status is Status.OK
    assert_gone(int(noted.read_text()))


def assert_gone(pid: int) -> None:
    for _ in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":  # dead; whoever inherited it has not asked how it ended
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


# --- what a target is ---


def test_a_script_sees_what_python_would_show_it(ran: Runner, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = __name__\n", "utf-8")
    (tmp_path / "types.py").write_text("raise RuntimeError('shadows the standard library')\n", "utf-8")
    text = (
        "import os, sys, beside\n"
        "assert __name__ == '__main__' and sys.modules['__main__'].__file__ == __file__\n"
        f"assert __file__ == {str(tmp_path / 'target.py')!r}, __file__\n"
        "assert sys.argv == ['target.py', '--lr', '1'], sys.argv\n"
        f"assert sys.path[0] == {os.path.realpath(tmp_path)!r}, sys.path\n"
        "assert __spec__ is None and beside.NAME == 'beside'\n"
    )
    assert ended(ran(text + TRAINING, "--lr", "1")) == (Status.OK, "")


def test_a_module_runs_as_main(ran: Runner, tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("", "utf-8")
    (package / "nets.py").write_text("WIDTH = 4\n", "utf-8")
    text = "import sys\nfrom .nets import WIDTH\nassert __name__ == '__main__' and sys.argv[1:] == ['a'], sys.argv\n"
    (package / "train.py").write_text(text + TRAINING, "utf-8")
    (package / "__main__.py").write_text(text + TRAINING, "utf-8")
    assert ended(ran("", target=Target("module", "pkg.train", ("a",)))) == (Status.OK, "")
    assert ended(ran("", target=Target("module", "pkg", ("a",)))) == (Status.OK, "")


def test_a_function_is_called_once_a_step_and_its_module_is_the_set_up(ran: Runner, tmp_path: Path) -> None:
    text = "calls = []\nclass Trainer:\n    @staticmethod\n    def step():\n        calls.append(1)\n"
    (tmp_path / "work.py").write_text(text, "utf-8")
    outcome = ran("", target=Target("function", "work:Trainer.step"), steps=3)
    assert outcome.recording is not None
    assert [step.kind for step in outcome.recording.steps] == ["call"] * 3


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target("script", "missing.py"), "there is no file `missing.py`"),
        (Target("module", "no.such"), "there is no module `no.such`"),
        (Target("function", "no_such:step"), "there is no module `no_such`"),
        (Target("function", "work:step"), "`work` has no `step`"),
        (Target("function", "work:NUMBER"), "is no function"),
        (Target("function", "work:needs"), "it wants batch"),
    ],
)
def test_a_target_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, words: str
) -> None:
    (tmp_path / "work.py").write_text("NUMBER = 1\ndef needs(batch, size=2): ...\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.delitem(sys.modules, "work", raising=False)
    find = import_function if target.kind == "function" else partial(run_main, sources=Sources({}, {}))
    with pytest.raises(NoSuchTarget, match=re.escape(words)):
        find(target)


def test_a_target_that_is_not_there_ends_the_run_with_words(ran: Runner) -> None:
    outcome = ran("", target=Target("script", "missing.py"))
    assert ended(outcome) == (Status.USER_EXCEPTION, "there is no file `missing.py`")
    assert "pkg.mod:function" in outcome.advice


# --- isolation ---


def test_what_a_target_writes_goes_elsewhere_and_can_be_read_again(ran: Runner, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept", "utf-8")
    text = (
        "import io, json, logging, os\n"
        "from pathlib import Path\n"
        "os.makedirs('out/deep', exist_ok=True)\n"
        "os.makedirs('out/deep', exist_ok=True)\n"
        "Path('runs/1').mkdir(parents=True, exist_ok=True)\n"
        "json.dump({'lr': 1}, open('out/deep/settings.json', 'w'))\n"
        "assert json.load(open('out/deep/settings.json')) == {'lr': 1}\n"
        "Path('runs/1/notes').write_text('a')\n"
        "with Path('runs/1/notes').open('a') as notes:\n    notes.write('b')\n"
        "assert Path('runs/1/notes').read_text() == 'ab'\n"
        "with open('kept.txt', 'a') as kept:\n    kept.write(' and changed')\n"
        "assert open('kept.txt').read() == 'kept and changed'\n"
        "with io.open('kept.txt', 'r+b') as kept:\n    kept.write(b'K')\n"
        "assert Path('kept.txt').read_text() == 'Kept and changed'\n"
        "logging.getLogger().addHandler(logging.FileHandler('train.log'))\n"
        "logging.warning('started')\n"
        "assert 'started' in open('train.log').read()\n"
        "os.close(os.open('new.lock', os.O_CREAT | os.O_RDWR))\n"
        "os.replace('out/deep/settings.json', 'out/settings.json')\n"
        "assert json.load(open('out/settings.json')) == {'lr': 1}\n"
        "os.remove('out/settings.json')\n"
        "try:\n    open('out/settings.json')\nexcept FileNotFoundError:\n    pass\n"
        "else:\n    raise AssertionError('removed and still there')\n"
    )
    assert ended(ran(text + TRAINING)) == (Status.OK, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.txt", "target.py"]
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_what_a_target_may_not_do(ran: Runner, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept", "utf-8")
    (tmp_path / "folder").mkdir()
    text = (
        "import _io, os, posix, shutil, sqlite3\n"
        "from pathlib import Path\n"
        "here = Path(__file__).parent\n"
        "attempts = [\n"
        "    lambda: _io.open('new.txt', 'w'),\n"
        "    lambda: _io.open('kept.txt', 'r+b'),\n"
        "    lambda: posix.open('new.txt', os.O_CREAT | os.O_WRONLY),\n"
        "    lambda: posix.mkdir('new'),\n"
        "    lambda: os.remove('kept.txt'),\n"
        "    lambda: Path('kept.txt').unlink(),\n"
        "    lambda: os.rename('kept.txt', 'lost.txt'),\n"
        "    lambda: os.replace('kept.txt', os.environ['TMPDIR'] + '/stolen'),\n"
        "    lambda: os.truncate('kept.txt', 0),\n"
        "    lambda: os.rmdir('folder'),\n"
        "    lambda: shutil.rmtree('folder'),\n"
        "    lambda: os.makedirs('made') or shutil.rmtree(here),\n"
        "    lambda: os.symlink('kept.txt', 'link'),\n"
        "    lambda: os.link('kept.txt', 'link'),\n"
        "    lambda: os.chmod('kept.txt', 0),\n"
        "    lambda: sqlite3.connect('new.db'),\n"
        "]\n"
        "for number, attempt in enumerate(attempts):\n"
        "    try:\n"
        "        attempt()\n"
        "    except PermissionError as error:\n"
        "        assert 'memlint' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(number)\n"
    )
    assert ended(ran(text + TRAINING)) == (Status.OK, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "kept.txt", "target.py"]
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_what_a_target_may_do(ran: Runner) -> None:
    text = (
        "import io, os, sqlite3, tempfile, torch\n"
        "open(os.devnull, 'w').write('x')\n"
        "os.makedirs('.', exist_ok=True)\n"
        "with tempfile.TemporaryFile() as nameless:\n"
        "    nameless.write(b'x')\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    open(folder + '/log', 'w').write('x')\n"
        "    os.makedirs(folder + '/deep/er')\n"
        "sqlite3.connect(':memory:')\n"
        "torch.save({'a': 1}, 'checkpoint.pt')\n"
        "buffer = io.BytesIO()\n"
        "torch.save({'a': 1}, buffer)\n"
        "assert torch.load(io.BytesIO(buffer.getvalue())) == {'a': 1}\n"
        "assert not os.path.exists('checkpoint.pt')\n"
    )
    assert ended(ran(text + TRAINING)) == (Status.OK, "")


def test_a_refused_write_says_what_to_do(ran: Runner, tmp_path: Path) -> None:
    outcome = ran("import os\nos.remove('target.py')\n")
    assert outcome.status is Status.USER_EXCEPTION
    assert str(tmp_path / "target.py") in outcome.message and "--allow-write" in outcome.advice


def test_writing_can_be_allowed(ran: Runner, tmp_path: Path) -> None:
    assert (
        ran("import torch\ntorch.save({}, 'saved.pt')\nopen('log.txt', 'w')\n" + TRAINING, allow_write=True).status
        is Status.OK
    )
    assert (tmp_path / "saved.pt").is_file() and (tmp_path / "log.txt").is_file()


def test_loggers_are_silent(ran: Runner, tmp_path: Path) -> None:
    loud = "class {name}:\n    def __init__(self, *args, **kwargs):\n        raise RuntimeError('loud')\n"
    for module, name in [
        ("aim", "Run"),
        ("comet_ml", "Experiment"),
        ("clearml", "Task"),
        ("tensorboardX", "SummaryWriter"),
    ]:
        (tmp_path / f"{module}.py").write_text(loud.format(name=name), "utf-8")
    text = (
        "import importlib.util, os\n"
        "assert importlib.util.find_spec('aim') is not None\n"
        "import aim, clearml, comet_ml\n"
        "from tensorboardX import SummaryWriter\n"
        "run = aim.Run(repo='.')\n"
        "run['lr'] = 0.1\n"
        "run.track(1.0, name='loss')\n"
        "comet_ml.Experiment('key').log_metric('loss', 1.0)\n"
        "clearml.Task.init('project').get_logger().report_scalar('loss', 1.0)\n"
        "with SummaryWriter('runs') as writer:\n"
        "    writer.add_scalar('loss', 1.0)\n"
        "assert os.environ['WANDB_MODE'] == 'disabled' and os.environ['HF_HUB_OFFLINE'] == '1'\n"
    )
    assert ended(ran(text + TRAINING)) == (Status.OK, "")


def test_loaders_work_without_workers(ran: Runner) -> None:
    text = (
        "import os, torch\n"
        "from torch.utils.data import DataLoader, Dataset\n"
        "class Pids(Dataset):\n"
        "    def __len__(self):\n        return 4\n"
        "    def __getitem__(self, index):\n        return os.getpid()\n"
        "loader = DataLoader(Pids(), 2, False, None, None, 2, prefetch_factor=4, persistent_workers=True,\n"
        "                    multiprocessing_context='spawn', timeout=5)\n"
        "assert {int(pid) for batch in loader for pid in batch} == {os.getpid()}\n"
        "assert loader.num_workers == 0 and loader.batch_size == 2\n"
    )
    assert ended(ran(text + TRAINING)) == (Status.OK, "")


def test_two_runs_draw_the_same_numbers_and_another_seed_draws_others(
    ran: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (
        "import random, numpy, torch\n"
        "from torch.utils.data import DataLoader\n"
        "order = [int(i) for i in DataLoader(range(5), shuffle=True)]\n"
        "print(random.random(), numpy.random.rand(), torch.rand(1).item(), order, list({'a', 'b', 'c', 'd'}))\n"
    )
    printed = []
    for seed in (0, 0, 1):
        assert ran(text + TRAINING, seed=seed).status is Status.OK
        printed.append(capfd.readouterr().err)
    assert printed[0] == printed[1] != printed[2]


def test_prepared_data_sets_can_be_read_and_new_ones_be_written_elsewhere(ran: Runner, tmp_path: Path) -> None:
    cache = tmp_path / "home" / "datasets"
    (cache / "old").mkdir(parents=True)
    (cache / "old" / "rows").write_text("1", "utf-8")
    code = (
        "import os, pathlib\n"
        "cache = pathlib.Path(os.environ['HF_DATASETS_CACHE'])\n"
        "assert (cache / 'old' / 'rows').read_text() == '1'\n"
        "(cache / 'new').mkdir()\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(cache.parent))
        assert ended(ran(code + TRAINING)) == (Status.OK, "")
    assert [entry.name for entry in cache.iterdir()] == ["old"]


def test_the_environment_of_the_job_comes_last(ran: Runner) -> None:
    text = "import os\nassert os.environ['WANDB_MODE'] == 'offline' and os.environ['DATA'] == 'x'\n"
    environment = {"WANDB_MODE": "offline", "DATA": "x"}
    assert ended(ran(text + TRAINING, environment=environment)) == (Status.OK, "")


# --- other texts, and lines that ran ---


def test_an_overlay_runs_in_place_of_the_files_and_leaves_them_alone(ran: Runner, tmp_path: Path) -> None:
    script, helper = str(tmp_path / "target.py"), tmp_path / "helper.py"
    helper.write_text("def value():\n    return 'disk'\n", "utf-8")
    text = "raise RuntimeError('from the disk')\n"
    served = (
        "import inspect, linecache, helper\n"
        "assert helper.value() == 'overlay'\n"
        "assert 'overlay' in inspect.getsource(helper.value)\n"
        f"assert __file__ == {script!r} and linecache.getline(__file__, 1).startswith('import inspect')\n"
        "linecache.checkcache()\n"
        "assert 'overlay' in inspect.getsource(helper.value)\n"
    )
    overlay = {script: served + TRAINING, str(helper): "\ndef value():\n    return 'overlay'\n"}
    assert ended(ran(text, overlay=overlay)) == (Status.OK, "")
    assert Path(script).read_text() == text and "disk" in helper.read_text()
    failing = ran(text, overlay={script: "x = 1\n\nraise ValueError(x)\n"})
    assert [(frame.place.path, frame.place.line, frame.text) for frame in failing.frames] == [
        (script, 3, "raise ValueError(x)")
    ]


def test_which_watched_lines_ran(ran: Runner, tmp_path: Path) -> None:
    helper = tmp_path / "helper.py"
    helper.write_text(
        '"""Docs."""\n'
        "from __future__ import annotations\n"
        "import functools\n"
        "\n"
        "@functools.cache\n"
        "def called(x):\n"
        '    """Docs."""\n'
        "    if x > 100: return 1\n"
        "    return max(\n"
        "        x,\n"
        "        2,\n"
        "    )\n"
        "\n"
        "@functools.cache\n"
        "def never():\n"
        "    return 3\n"
        "\n"
        "match 1:\n"
        "    case 2:\n"
        "        x = 1\n"
        "    case 1:\n"
        "        y = 2\n"
        "try:\n"
        "    z = 1\n"
        "except ValueError:\n"
        "    z = 2\n"
        "finally:\n"
        "    w = [i for i in range(3)]\n",
        "utf-8",
    )
    watched = {str(helper): tuple(range(1, 29))}
    outcome = ran(
        "import helper\nassert helper.called(1) == 2 and helper.called.__doc__ == 'Docs.'\n" + TRAINING, watched=watched
    )
    assert ended(outcome) == (Status.OK, "")
    assert outcome.recording is not None
    assert outcome.recording.ran_lines == {
        str(tmp_path / "target.py"): frozenset(),
        str(helper): frozenset({3, 5, 6, 9, 10, 11, 12, 18, 22, 23, 24, 28}),
    }
