"""`torch.cuda` where there is no card: one device, whose memory is what the meter says.

Tensors are no business of this module: each backend makes its own of `device="cuda"`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from memlint.measure.recording import DeviceInfo
from memlint.measure.worker.backend import Meter, Unsupported
from memlint.measure.worker.patching import Patches

_Generator: Any = torch.Generator
_RNG_STATE_BYTES = 16
"""Of a CUDA generator: seed and offset."""
_SEGMENT = 2 << 20
"""The caching allocator reserves whole segments of 2 MiB at least."""


@contextmanager
def pretended_cuda(meter: Meter, device: DeviceInfo) -> Iterator[None]:
    """Answer `torch.cuda` and `torch.accelerator` as a machine with this one card would.

    Memory queries are answered from the meter; reserved memory is the least that could be: the peak in whole segments.
    """
    with Patches() as patches:
        functions = {**_device(device), **_memory(meter, device), **_random(), **_streams(), **_legacy_tensors()}
        for name, value in functions.items():
            # The same name in `torch.cuda.memory`, `.random` and `.streams` is the same function.
            for owner in (torch.cuda, torch.cuda.memory, torch.cuda.random, torch.cuda.streams):
                if name in vars(owner):
                    patches.set(owner, name, value)
        _accelerator(patches, functions)
        patches.set(torch, "Generator", _PretendedGenerator)
        patches.set(torch.cuda, "default_generators", (_PretendedGenerator("cuda"),))
        patches.set(torch.cuda.nvtx, "_nvtx", _NoMarks())
        if torch.version.cuda is None:
            patches.set(torch.version, "cuda", "13.0")
        yield


def pretended_properties(device: DeviceInfo) -> SimpleNamespace:
    """What `torch.cuda.get_device_properties` says of the card."""
    major, minor = device.capability
    return SimpleNamespace(
        name=device.name,
        major=major,
        minor=minor,
        total_memory=device.total_bytes,
        multi_processor_count=108,
        max_threads_per_multi_processor=2048 if (major, minor) in {(7, 0), (8, 0), (9, 0), (10, 0)} else 1536,
        warp_size=32,
        regs_per_multiprocessor=65536,
        L2_cache_size=40 << 20,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=163 << 10,
        is_integrated=0,
        is_multi_gpu_board=0,
        gcnArchName="",
        uuid="00000000-0000-0000-0000-000000000000",  # no card has this one
    )


def _ordinal(device: Any = None) -> int:
    """The index of a device as `torch.cuda` functions take it. Raises RuntimeError, as CUDA does, past the one card."""
    if device is None:
        return 0
    if isinstance(device, int):
        index = device
    else:
        named = torch.device(device) if isinstance(device, str) else device
        if named.type != "cuda":
            raise ValueError(f"Expected a cuda device, but got: {named}")
        index = named.index or 0
    if index > 0:
        raise RuntimeError("CUDA error: invalid device ordinal (memlint pretends one device)")
    return 0


def _nothing() -> Callable[..., None]:
    """A function that does nothing; a new one each time, since dynamo's tables refuse one function under two names."""
    return lambda *_args, **_kwargs: None


def _answer(value: Any) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: value


def _again(function: Callable[..., Any]) -> Callable[..., Any]:
    """Another function that does the same: see `_nothing`."""

    def again(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return again


def _ask(question: Callable[[], Any]) -> Callable[..., Any]:
    """A function that gives a fresh answer, whatever it is called with."""
    return lambda *_args, **_kwargs: question()


def _device(device: DeviceInfo) -> dict[str, Any]:
    properties = pretended_properties(device)
    architecture = f"sm_{device.capability[0]}{device.capability[1]}"
    bf16 = device.capability >= (8, 0)
    answers: dict[str, Any] = {
        "is_available": _answer(True),
        "_is_compiled": _answer(True),
        "device_count": _answer(1),
        "current_device": _answer(0),
        "is_initialized": _answer(True),
        "get_device_properties": lambda device=None: (_ordinal(device), properties)[1],
        "get_device_name": lambda device=None: (_ordinal(device), properties.name)[1],
        "get_device_capability": lambda device=None: (_ordinal(device), (properties.major, properties.minor))[1],
        # Since CUDA 11 every card emulates bfloat16; without emulation it takes Ampere.
        "is_bf16_supported": lambda including_emulation=True: bool(including_emulation or bf16),
        "is_tf32_supported": _answer(bf16),
        "get_arch_list": _answer([architecture]),
        "can_device_access_peer": _answer(False),
        "get_allocator_backend": _answer("native"),
        "is_current_stream_capturing": _answer(False),
        "set_device": lambda device: _ordinal(device) and None,
        "device": _DeviceContext,
        "device_of": _DeviceContext,
        "CUDAGraph": _NoGraph,
        "graph": _NoGraph,
        "make_graphed_callables": _NoGraph,
    }
    idle = "utilization temperature power_draw clock_rate memory_usage device_memory_used get_sync_debug_mode"
    answers.update({name: _answer(0) for name in idle.split()})
    silent = "_lazy_init init synchronize ipc_collect set_sync_debug_mode"
    answers.update({name: _nothing() for name in silent.split()})
    return answers


class _NoGraph:
    """A class, since programs name it in annotations."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise Unsupported("CUDA graphs keep a pool of their own, which memlint does not model", "try `--backend cuda`")


def _memory(meter: Meter, device: DeviceInfo) -> dict[str, Any]:
    def reserved() -> int:
        return -(-meter.peak // _SEGMENT) * _SEGMENT

    def statistics() -> dict[str, int]:
        filled = defaultdict(int, {"num_alloc_retries": 0, "num_ooms": 0, "num_sync_all_streams": 0})
        for kind, now, peak in (
            ("allocated_bytes", meter.allocated, meter.peak),
            ("active_bytes", meter.allocated, meter.peak),
            ("requested_bytes", meter.allocated, meter.peak),
            ("reserved_bytes", reserved(), reserved()),
        ):
            filled[f"{kind}.all.current"] = now
            filled[f"{kind}.all.peak"] = peak
        return filled

    def nested() -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, value in statistics().items():
            *path, last = name.split(".")
            level = tree
            for key in path:
                level = level.setdefault(key, {})
            level[last] = value
        return tree

    answers: dict[str, Any] = {
        "memory_allocated": _ask(lambda: meter.allocated),
        "max_memory_allocated": _ask(lambda: meter.peak),
        "memory_stats": _ask(statistics),
        "memory_stats_as_nested_dict": _ask(nested),
        "mem_get_info": _ask(lambda: (max(0, device.total_bytes - reserved()), device.total_bytes)),
        "reset_peak_memory_stats": _ask(meter.reset_peak),
        "reset_max_memory_allocated": _ask(meter.reset_peak),
        "memory_snapshot": _answer([]),
        "list_gpu_processes": _answer(f"GPU:0\n{device.name} is pretended"),
        "get_per_process_memory_fraction": _answer(1.0),
    }
    answers.update({name: _ask(reserved) for name in ("memory_reserved", "memory_cached")})
    answers.update({name: _ask(reserved) for name in ("max_memory_reserved", "max_memory_cached")})
    silent = (
        "empty_cache reset_accumulated_memory_stats reset_max_memory_cached set_per_process_memory_fraction "
        "_record_memory_history _dump_snapshot"
    )
    answers.update({name: _nothing() for name in silent.split()})
    return answers


def _random() -> dict[str, Any]:
    """The random state of the card, which nobody reads: values on it are not random numbers here."""

    def state() -> torch.Tensor:
        return torch.zeros(_RNG_STATE_BYTES, dtype=torch.uint8, device="cpu")

    answers: dict[str, Any] = {
        "get_rng_state": _ask(state),
        "get_rng_state_all": _ask(lambda: [state()]),
        "initial_seed": _answer(0),
    }
    silent = "manual_seed manual_seed_all seed seed_all set_rng_state set_rng_state_all"
    answers.update({name: _nothing() for name in silent.split()})
    return answers


class _DeviceContext:
    """`torch.cuda.device(0)`."""

    def __init__(self, device: Any = None) -> None:
        index = device.device if isinstance(device, torch.Tensor) else device
        self.idx = _ordinal(index) if not isinstance(index, torch.device) or index.type == "cuda" else 0
        self.prev_idx = 0

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exception: object) -> None:
        return None


class _Stream:
    """A stream on which everything has been done already."""

    cuda_stream = 0
    stream_id = 0
    device_index = 0
    priority = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.device = torch.device("cuda", 0)

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return False

    def record_event(self, event: _Event | None = None) -> _Event:
        event = event or _Event()
        event.record(self)
        return event

    def wait_event(self, event: Any) -> None: ...

    def wait_stream(self, stream: Any) -> None: ...

    def synchronize(self) -> None: ...

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stream)

    def __hash__(self) -> int:
        return 0


class _Event:
    """An event that has happened when it is recorded, by the host's clock."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self._at = 0.0

    def record(self, _stream: Any = None) -> None:
        self._at = time.perf_counter()

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: _Event) -> float:
        return max(1e-3, (end._at - self._at) * 1e3)

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...


class _StreamContext:
    def __init__(self, stream: Any = None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exception: object) -> None:
        return None


def _streams() -> dict[str, Any]:
    return {
        "Stream": _Stream,
        "ExternalStream": _Stream,
        "Event": _Event,
        "StreamContext": _StreamContext,
        "stream": _StreamContext,
        "current_stream": _ask(_Stream),
        "default_stream": _ask(_Stream),
        "set_stream": _nothing(),
        "_set_stream_by_id": _nothing(),
    }


class _NoMarks:
    """NVTX without a profiler that listens."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_args, **_kwargs: 0


class _GeneratorType(type(_Generator)):  # type: ignore[misc] # its metaclass is torch's own
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Generator)


class _PretendedGenerator(_Generator, metaclass=_GeneratorType):
    """`torch.Generator("cuda")` is one for the CPU that says otherwise."""

    def __new__(cls, device: Any = "cpu") -> Any:
        made = super().__new__(cls, "cpu")
        made._device = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self._device


def _legacy_tensors() -> dict[str, type]:
    """`torch.cuda.FloatTensor(2, 3)` and its kin."""
    dtypes = {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Byte": torch.uint8,
        "Char": torch.int8,
        "Short": torch.int16,
        "Int": torch.int32,
        "Long": torch.int64,
        "Bool": torch.bool,
    }

    class LegacyType(type):
        dtype: torch.dtype

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, torch.Tensor) and instance.is_cuda and instance.dtype is cls.dtype

        def __call__(cls, *arguments: Any) -> torch.Tensor:
            if len(arguments) == 1 and not isinstance(arguments[0], int):
                return torch.tensor(arguments[0], dtype=cls.dtype, device="cuda")
            return torch.empty(arguments, dtype=cls.dtype, device="cuda")

    return {f"{name}Tensor": LegacyType(f"{name}Tensor", (), {"dtype": dtype}) for name, dtype in dtypes.items()}


def _accelerator(patches: Patches, cuda: dict[str, Any]) -> None:
    """`torch.accelerator` is `torch.cuda` under names of its own."""
    answers = {
        "is_available": cuda["is_available"],
        "device_count": cuda["device_count"],
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "current_stream": cuda["current_stream"],
        "set_stream": cuda["set_stream"],
        "get_memory_info": cuda["mem_get_info"],
        "device_index": cuda["device"],
    }
    answers.update({name: _answer(0) for name in ("current_device_index", "current_device_idx")})
    answers.update({name: _nothing() for name in ("set_device_index", "set_device_idx", "synchronize")})
    memory = (
        "empty_cache memory_allocated max_memory_allocated memory_reserved max_memory_reserved memory_stats "
        "reset_peak_memory_stats reset_accumulated_memory_stats"
    )
    answers.update({name: cuda[name] for name in memory.split()})
    for name, value in answers.items():
        for owner in (torch.accelerator, torch.accelerator.memory):
            if name in vars(owner):
                patches.set(owner, name, value if isinstance(value, type) else _again(value))
