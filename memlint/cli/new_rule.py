"""`memlint rule new`: a rule with its page and its fixture, to begin with."""

from __future__ import annotations

import re
from pathlib import Path

import click

from memlint.cli.errors import Trouble
from memlint.config.paths import shown
from memlint.source.file import write_atomically

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")

_RULE = '''"""{code}."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.api import Confidence, Cost, CostClass, Draft, Module, RemoveStatement, Rule, unsafe_fix

MEMLINT_API = 1


class {class_name}(Rule):
    """The device is waited for at every step.

    ## What it does
    Flags `torch.cuda.synchronize()` in a loop over batches. (This is an example: say here what yours finds.)

    ## What it costs
    A number that somebody measured, and how.

    ## Example
    ```python
    import torch
    from torch.utils.data import DataLoader


    def train(step, loader: DataLoader):
        for batch in loader:
            step(batch)
            torch.cuda.synchronize()
    ```

    ## Use instead
    ```python
    import torch
    from torch.utils.data import DataLoader


    def train(step, loader: DataLoader):
        for batch in loader:
            step(batch)
        torch.cuda.synchronize()
    ```

    ## Fix safety
    Unsafe: somebody may measure the time.

    ## When it stays silent
    Behind a condition, and outside of loops over batches.
    """

    code = "{code}"
    name = "{name}"
    since = "1.0"
    triggers = frozenset({{"synchronize"}})

    def check(self, module: Module) -> Iterator[Draft]:
        for call in module.calls_of(frozenset({{"torch.cuda.synchronize"}})):
            if call.loop is None or not call.loop.is_batch_loop:
                continue  # once, before a clock is read
            if call.guarded:
                continue  # `if step % 100 == 0:`
            yield self.finding(
                call.node,
                f"`{{module.text(call.node)}}` waits for the device in every iteration",
                cost=Cost(CostClass.CONSTANT),
                confidence=Confidence.HIGH,
                related=[(call.loop.node, "the loop")],
                fix=unsafe_fix("remove it", RemoveStatement(call.statement)),
            )
'''

_FIXTURE = """# {name}

## In every iteration

```python
import torch
from torch.utils.data import DataLoader


def train(step, loader: DataLoader):
    for batch in loader:
        step(batch)
        torch.cuda.synchronize()  # error: {code} "waits for the device"
```

```python unsafe-fixed
import torch
from torch.utils.data import DataLoader


def train(step, loader: DataLoader):
    for batch in loader:
        step(batch)
```

## Now and then is no waste

```python
import torch
from torch.utils.data import DataLoader


def train(step, loader: DataLoader):
    for number, batch in enumerate(loader):
        step(batch)
        if number % 100 == 0:
            torch.cuda.synchronize()
```
"""


def write_new_rule(name: str, code: str, folder: Path) -> None:
    """Write the two files and say what to do with them. Raises Trouble."""
    if not _NAME.fullmatch(name):
        raise Trouble(
            f'"{name}" is no name for a rule: two words or more that say the sin, such as tensor-printed-in-loop'
        )
    module = name.replace("-", "_")
    class_name = "".join(word.capitalize() for word in name.split("-"))
    files = {
        folder / f"{module}.py": _RULE.format(code=code, name=name, class_name=class_name),
        folder / f"{name}.md": _FIXTURE.format(code=code, name=name),
    }
    for file in files:
        if file.exists():
            raise Trouble(f"{file} is there already")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_atomically(file, text.encode())
            click.echo(f"Wrote {file}")
    except OSError as error:
        raise Trouble(f"cannot write into {folder}: {error.strerror or error}") from None
    click.echo(
        f'Name it in [tool.memlint]: local-rules = ["{shown(folder)}"]\n'
        f"Test it: memlint test --allow-local-rules {folder}"
    )
