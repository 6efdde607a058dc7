"""Cards that `fake` can pretend, by name: what they have in memory, and what they can compute.

Total memory is what a program sees (`torch.cuda.get_device_properties(0).total_memory`): less than the name says, since
part of it is the driver's or error correction's. It is nowhere published, but out-of-memory errors quote it ("GPU 0
has a total capacity of 79.14 GiB"): `source` is a public report that has one (GitHub: owner/repository#issue). Of
several the least is taken. Compute capability: NVIDIA's list, developer.nvidia.com/cuda-gpus.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from memlint.measure.recording import DeviceInfo


@dataclass(frozen=True)
class Card:
    """A card. `total_bytes` as PyTorch reports it; `source` says who saw it, or how it was guessed."""

    name: str
    capability: tuple[int, int]
    total_bytes: int
    source: str


def _card(name: str, capability: tuple[int, int], gibibytes: float, source: str) -> Card:
    return Card(name, capability, int(gibibytes * 2**30), source)


CARDS: dict[str, Card] = {
    "h200-141gb": _card("NVIDIA H200", (9, 0), 139.0, "a machine with one says about 139 GiB"),
    "h100-80gb": _card("NVIDIA H100 80GB HBM3", (9, 0), 79.11, "vllm-project/vllm#27508"),
    "a100-80gb": _card("NVIDIA A100-SXM4-80GB", (8, 0), 79.14, "lianqi1008/Control-GIC#6"),
    "a100-40gb": _card("NVIDIA A100-SXM4-40GB", (8, 0), 39.50, "TianheWu/CoSeR#10"),
    "l40-48gb": _card("NVIDIA L40", (8, 9), 44.40, "QwenLM/Qwen3-VL#2097"),
    "a30-24gb": _card("NVIDIA A30", (8, 0), 23.53, "google/RB-Modulation#5"),
    "a10-24gb": _card("NVIDIA A10G", (8, 6), 22.49, "AUTOMATIC1111/stable-diffusion-webui#1259 (an A10G)"),
    "l4-24gb": _card("NVIDIA L4", (8, 9), 22.0, "not seen: 24 GB less what error correction takes of an A10G"),
    "t4-16gb": _card("Tesla T4", (7, 5), 14.56, "Zheng-Chong/CatVTON#133"),
    "v100-32gb": _card("Tesla V100-SXM2-32GB", (7, 0), 31.74, "liucongg/ChatGLM-Finetuning#73"),
    "v100-16gb": _card("Tesla V100-SXM2-16GB", (7, 0), 15.78, "kchengiva/Shift-GCN#34"),
    "rtx-5090-32gb": _card("NVIDIA GeForce RTX 5090", (12, 0), 31.37, "Wan-Video/Wan2.1#465"),
    "rtx-4090-24gb": _card("NVIDIA GeForce RTX 4090", (8, 9), 23.64, "3DTopia/Phidias-Diffusion#8"),
    "rtx-3090-24gb": _card("NVIDIA GeForce RTX 3090", (8, 6), 23.70, "GaoLii/DSP#10"),
    "rtx-3080-10gb": _card("NVIDIA GeForce RTX 3080", (8, 6), 9.78, "zai-org/CogVideo#34"),
    "rtx-a4000-16gb": _card("NVIDIA RTX A4000", (8, 6), 15.61, "DengKaiCQ/VGGT-Long#6"),
}
DEFAULT = "a100-80gb"

_DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver for Linux says which cards there are."""


def in_this_machine(driver: Path = _DRIVER) -> str | None:
    """The card that is here, by the name under which memlint knows it; None where there is none, or several kinds.

    Asks the driver's files: nothing is woken.
    """
    models = set()
    for file in driver.glob("*/information"):
        with suppress(OSError):
            found = re.search(r"^Model:\s*(.+?)\s*$", file.read_text("utf-8", "replace"), re.MULTILINE)
            models.add(found[1] if found else "")
    if len(models) != 1:
        return None
    (model,) = models
    return next((name for name, card in CARDS.items() if model.startswith(card.name)), None)


def pretended(name: str | None) -> DeviceInfo:
    """The card of that name; None is the default one. Raises KeyError for a name that memlint does not know."""
    card = CARDS[name or DEFAULT]
    return DeviceInfo(card.name, card.total_bytes, card.capability)
