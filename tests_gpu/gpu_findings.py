"""What a session of the GPU suite finds, as JSON and as Markdown."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_figures import Row, slug, table
from gpu_runs import AT_ONCE, SIZE, STEPS, this_card

from memlint.measure.devices import DEFAULT


class Findings:
    """The tables of a session, by the number that the item has in the design of the suite.

    Written to the folder each time one is added, so that a session that is ended early leaves what it has found.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._items: dict[int, dict[str, Any]] = {}
        self.written: list[Path] = []

    def add(self, number: int, title: str, rows: Sequence[Row], note: str = "") -> None:
        """Write a table. Called before anything is asserted, so that a failure leaves its numbers."""
        tables = self._items.setdefault(number, {})
        tables[title] = {"rows": list(rows), "note": note}
        about = _about()
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = self._folder / slug(about["card"], "torch", about["torch"])
        contents = {"about": about, "items": {str(number): self._items[number] for number in sorted(self._items)}}
        self.written = [stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".md")]
        self.written[0].write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
        self.written[1].write_text(self._markdown(about), encoding="utf-8")

    def _markdown(self, about: dict[str, Any]) -> str:
        parts = [f"# GPU suite: {about['card']}, torch {about['torch']}", table([about])]
        for number in sorted(self._items):
            for title, content in self._items[number].items():
                parts += [f"## {number}. {title}", content["note"], table(content["rows"])]
        return "\n\n".join(part for part in parts if part) + "\n"


def _about() -> dict[str, Any]:
    import torch

    return {
        "card": torch.cuda.get_device_name(0),
        "predicted_as": this_card() or f"{DEFAULT}: memlint does not know this card",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "size": SIZE,
        "steps": STEPS,
        "processes_at_once": AT_ONCE,
    }
