"""Cards that `fake` can pretend, by name: what they have in memory, and what they can compute.

Total memory is what a program sees (`torch.cuda.get_device_properties(0).total_memory`), which is less than the
name says: part of it is the driver's, or error correction's.
"""

from __future__ import annotations

from dataclasses import dataclass

from memlint.measure.recording import DeviceInfo

_CAPABILITIES = "https://developer.nvidia.com/cuda-gpus"


@dataclass(frozen=True)
class Card:
    """A card. `total_bytes` as PyTorch reports it, where `source` says from."""

    name: str
    capability: tuple[int, int]
    total_bytes: int
    source: str


def _card(name: str, capability: tuple[int, int], gibibytes: float, source: str) -> Card:
    return Card(name, capability, int(gibibytes * 2**30), source)


CARDS: dict[str, Card] = {
    "a100-80gb": _card("NVIDIA A100-SXM4-80GB", (8, 0), 79.15, ""),
}
DEFAULT = "a100-80gb"


def pretended(name: str | None) -> DeviceInfo:
    """The card of that name; None is the default one. Raises KeyError for a name that memlint does not know."""
    card = CARDS[name or DEFAULT]
    return DeviceInfo(card.name, card.total_bytes, card.capability)
