"""A confirmation as JSON. The format is an interface, and what is saved: docs/confirm.md says what each key means."""

from __future__ import annotations

import json
import os
from pathlib import Path

from memlint import __version__
from memlint.measure.confirm.confirmation import Confirmation, Priced, Together
from memlint.measure.confirm.report import in_a_line
from memlint.measure.confirm.verdicts import Price, Results
from memlint.measure.recording import Place

SCHEMA_VERSION = 1


def render(confirmation: Confirmation, folder: Path) -> str:
    """`folder` is what paths are relative to: that of the file that it is saved in."""
    return json.dumps(confirmation_object(confirmation, folder), indent=2)


def confirmation_object(confirmation: Confirmation, folder: Path) -> dict[str, object]:
    device = confirmation.device
    return {
        "schema_version": SCHEMA_VERSION,
        "memlint_version": __version__,
        "torch_version": confirmation.torch_version,
        "target": confirmation.target,
        "backend": confirmation.backend,
        "basis": confirmation.basis,
        "device": {"name": device.name, "total_bytes": device.total_bytes},
        "steps": confirmation.steps,
        "warmup": confirmation.warmup,
        "input_shapes": [list(shape) for shape in confirmation.input_shapes],
        "baseline": _price(confirmation.before),
        "noise_bytes": confirmation.noise_bytes,
        "deterministic": _results(confirmation.deterministic),
        "files": [
            {"path": _relative(path, folder), "sha256": digest} for path, digest in sorted(confirmation.files.items())
        ],
        "findings": [_priced(priced, confirmation, folder) for priced in confirmation.priced],
        "together": _together(confirmation.together, folder),
        "assumptions": [
            {"what": one.what, "count": one.count, **_place(one.place, folder)} for one in confirmation.assumptions
        ],
    }


def _priced(priced: Priced, confirmation: Confirmation, folder: Path) -> dict[str, object]:
    finding = priced.finding
    return {
        "path": _relative(priced.path, folder),
        "line": finding.start.line,
        "end_line": finding.end.line,
        "code_line": priced.code_line,
        "code": finding.code,
        "name": finding.name,
        "message": finding.message,
        "applicability": None if priced.applicability is None else priced.applicability.value,
        "verdict": priced.verdict.value,
        "reason": priced.reason,
        "summary": in_a_line(priced, confirmation),
        "after": _price(priced.after),
        "results": _results(priced.results),
        "held_at_peak_bytes": priced.held_at_peak_bytes,
        "grows_bytes_per_step": priced.grows_bytes_per_step,
    }


def _together(together: Together | None, folder: Path) -> dict[str, object] | None:
    if together is None:
        return None
    return {
        "fixes": together.fixes,
        "after": _price(together.after),
        "results": _results(together.results),
        "reason": together.reason,
        "remaining_growth": [
            {**_place(one.place, folder), "kept_by": one.kept_by, "bytes_per_step": one.bytes_per_step}
            for one in together.remaining
        ],
    }


def _price(price: Price | None) -> dict[str, object] | None:
    if price is None:
        return None
    return {
        "peak_allocated_bytes": price.peak_allocated_bytes,
        "peak_reserved_bytes": price.peak_reserved_bytes,
        "growth_bytes_per_step": price.growth_bytes_per_step,
        "growth_of_kinds": [{"step_kind": kind, "bytes_per_step": growth} for kind, growth in price.growth_of_kinds],
        "graph_nodes_per_step": price.graph_nodes_per_step,
    }


def _results(results: Results) -> dict[str, object]:
    return {"grade": results.grade.value, "detail": results.detail}


def _place(place: Place | None, folder: Path) -> dict[str, object]:
    return (
        {"path": None, "line": None} if place is None else {"path": _relative(place.path, folder), "line": place.line}
    )


def _relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
