"""The options of `memlint measure` and `memlint confirm`: `[tool.memlint.measure]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum

from memlint.config.table import Table


class BackendChoice(str, Enum):
    AUTO = "auto"
    """`cuda` where there is one, else `fake`, else `cpu`."""
    CUDA = "cuda"
    FAKE = "fake"
    CPU = "cpu"


@dataclass(frozen=True)
class MeasureOptions:
    """None, or empty, where a place does not say. Sizes are as written: `24GiB`."""

    steps: int | None = None
    with_evaluation: bool | None = None
    warmup: int | None = None
    backend: BackendChoice | None = None
    device: str | None = None
    budget: str | None = None
    timeout: float | None = None
    memory_limit: str | None = None
    seed: int | None = None
    allow_write: bool | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, NamedTarget] = field(default_factory=dict)

    def over(self, weaker: MeasureOptions) -> MeasureOptions:
        """These, and what only the weaker place says. Environments and targets add up by name."""
        said = {option.name: getattr(self, option.name) for option in fields(self)}
        merged = {name: value for name, value in said.items() if value is not None}
        merged["env"] = {**weaker.env, **self.env}
        merged["targets"] = {**weaker.targets, **self.targets}
        return replace(weaker, **merged)


@dataclass(frozen=True)
class NamedTarget:
    """A target as one would write it on the command line, and the options that hold for it alone."""

    target: str
    arguments: tuple[str, ...] = ()
    options: MeasureOptions = field(default_factory=MeasureOptions)


KEYS = (
    "steps",
    "with-evaluation",
    "warmup",
    "backend",
    "device",
    "budget",
    "timeout",
    "memory-limit",
    "seed",
    "allow-write",
    "env",
)


class MeasureTable(Table):
    """`[tool.memlint.measure]`, or the table of one of its targets."""

    def options(self) -> MeasureOptions:
        """Raises ConfigError."""
        self.require_known((*KEYS, "targets"))
        targets = self.table("targets", "a table of targets")
        named = {name: self._target(name, value) for name, value in targets.items()}
        return replace(self._own_options(), targets=named)

    def _own_options(self) -> MeasureOptions:
        size = 'a size such as "24GiB"'
        return MeasureOptions(
            steps=self.count("steps", least=1),
            with_evaluation=self.flag("with-evaluation"),
            warmup=self.count("warmup", least=0),
            backend=self.choice("backend", BackendChoice),
            device=self.text("device", 'the name of a card such as "a100-80gb"'),
            budget=self.text("budget", size),
            timeout=self.seconds("timeout"),
            memory_limit=self.text("memory-limit", size),
            seed=self.count("seed", least=0),
            allow_write=self.flag("allow-write"),
            env=self._env(),
        )

    def _env(self) -> dict[str, str]:
        values = self.table("env", "a table of strings")
        table = Table(f"{self.name} env", values)
        return {name: table.text(name, "a string") or "" for name in values}

    def _target(self, name: str, value: object) -> NamedTarget:
        if isinstance(value, str):
            return NamedTarget(value)
        if not isinstance(value, Mapping):
            raise self.wrong(f"targets.{name}", 'a target such as "train.py", or a table with one', value)
        table = MeasureTable(f"{self.name} targets.{name}", value)
        table.require_known(("target", "args", *KEYS))
        target = table.text("target", 'a target such as "train.py"')
        if target is None:
            raise self.wrong(f"targets.{name}", 'a table with a "target"', value)
        return NamedTarget(target, table.words("args") or (), table._own_options())
