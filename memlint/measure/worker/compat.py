"""Every private name of torch that the worker uses, in one place, and what makes it take `cuda` without a card.

Names that torch does not promise may go with any release. So they are looked up here alone, and `self_test` tries what
rests on them in a process of its own before any user code runs: a refusal is better than a wrong number, and what
aborts there takes nothing else with it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch imports it when a mode is first used, and it must not see a pretended card
from torch._C import DispatchKey
from torch._prims_common import suggest_memory_format
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import optimizer as optimizers
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)
from torch.utils.weak import WeakIdKeyDictionary

from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.patching import Patches

__all__ = [
    "ENGINE",
    "RUN_BACKWARD",
    "UNKNOWN_OPERATOR_ERRORS",
    "UNKNOWN_VALUE_ERRORS",
    "WITHOUT_KERNEL",
    "AutocastLists",
    "DispatchKey",
    "DispatchMode",
    "FakeTensor",
    "OneFakeMode",
    "TorchDispatchMode",
    "WeakIdKeyDictionary",
    "compose",
    "compose_without_cudnn",
    "creates_graph",
    "cuda_autocast_lists",
    "cuda_without_a_card",
    "entered_modes",
    "fake_cuda_tensors",
    "fake_errors_told_once",
    "grad_fn",
    "has_kernel",
    "has_operator",
    "is_composite",
    "is_entered",
    "kernel",
    "layers_fuse",
    "memory_history",
    "on_out_of_memory",
    "operator",
    "operators_with_kernel",
    "own_kernels",
    "record_memory_history",
    "running_node",
    "saved_tensors",
    "sdp_priority",
    "self_test",
    "unseen",
    "unwrapped",
    "without_autocast",
    "without_torch_function",
]

RUN_BACKWARD = "_engine_run_backward"
"""The function of `torch.autograd` through which `backward` and `grad` go: (roots, gradients, retain_graph,
create_graph, ...)."""

ENGINE = torch.autograd.graph._engine_run_backward.__code__
"""The code from which the engine runs the nodes: the frame above an operation that no Python function has asked for."""

UNKNOWN_VALUE_ERRORS = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)
"""What FakeTensorMode raises where an operator's result depends on values."""
UNKNOWN_OPERATOR_ERRORS = (
    fake_tensor.UnsupportedOperatorException,
    fake_tensor.UnsupportedFakeTensorException,
    torch.AcceleratorError,
)
"""What it raises where an operator says nothing of its results without running; a CUDA build then looks for a card."""

WITHOUT_KERNEL = "with arguments from the 'CUDA' backend"
"""What torch says of an operator that was asked to run on what has no values."""

_ADVICE = "try `--backend cpu`"
_CUDA = 1
"""c10::DeviceType::CUDA."""
_VTABLE_HEADER = 2 * ctypes.sizeof(ctypes.c_void_p)
"""In the Itanium C++ ABI (Linux, macOS) the offset to the top and the type information lie before the first slot."""
_SELF_TEST_SECONDS = 60.0


class DispatchMode(TorchDispatchMode):
    """A mode that torch.compile need not pass by, which costs as much as a mode: while modes are entered, it is off."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _FakeState(threading.local):
    in_kernel_invocation = False

    def __init__(self) -> None:
        self.enter_stack: list[Any] = []


class OneFakeMode(FakeTensorMode):
    """A fake mode that threads may share: what says how far an operation has come is each thread's own.

    Its caches are shared. So operations are to take turns (`turn`).
    """

    def __init__(self) -> None:
        self._here = _FakeState()
        self.turn = threading.RLock()
        super().__init__(allow_non_fake_inputs=True)

    def __deepcopy__(self, _memo: dict[int, Any]) -> OneFakeMode:
        """Fake tensors refer to it, and a copied model's are of the same mode."""
        return self

    @property
    def in_kernel_invocation(self) -> bool:
        return self._here.in_kernel_invocation

    @in_kernel_invocation.setter
    def in_kernel_invocation(self, value: bool) -> None:
        self._here.in_kernel_invocation = value

    @property
    def enter_stack(self) -> list[Any]:
        return self._here.enter_stack

    @enter_stack.setter
    def enter_stack(self, value: list[Any]) -> None:
        self._here.enter_stack = value


def kernel(operator: Any) -> Callable[..., Any]:
    """What an overload (`torch.ops.aten.mm.default`) calls, which saves a call of Python's."""
    run: Callable[..., Any] = getattr(operator, "_op", operator)
    return run


without_torch_function = torch._C.DisableTorchFunction
"""A context in which operations and attributes of tensors pass by all modes and subclasses above autograd."""


def has_kernel(operator: str, key: str) -> bool:
    """Whether this build of torch has a kernel of its own for the operator (`aten::mm`) under a dispatch key."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(operator, key))


def operators_with_kernel(key: str) -> set[str]:
    """The operators (`softmax.int`) that have a kernel of their own under a dispatch key."""
    names: list[str] = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    return {name.removeprefix("aten::") for name in names}


def has_operator(name: str) -> bool:
    return operator(name) is not None


def operator(name: str) -> Any:
    """The overload that PyTorch calls `softmax.int`, or `mm`."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)


@dataclass(frozen=True)
class AutocastLists:
    """What autocast does to operations on CUDA, by the names of the operators."""

    lower: frozenset[str]
    single: frozenset[str]
    single_result: frozenset[str]
    promoted: frozenset[str]


def cuda_autocast_lists() -> AutocastLists:
    """Read from the header in the wheel. Raises Unsupported where it is not as known."""
    header = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"

    def entries(macro: str) -> frozenset[str]:
        body = re.search(rf"#define AT_FORALL_{macro}\(_\)((?:.*\\\n)*.*)", text)
        found = re.findall(r"_\((\w+)(?:,\s*(\w+))?\)", body.group(1)) if body else []
        return frozenset(name + (f".{overload}" if overload else "") for name, overload in found)

    try:
        text = header.read_text()
    except OSError as error:
        raise Unsupported(f"torch {torch.__version__} hides its autocast lists: {error}", _ADVICE) from error
    lists = AutocastLists(*map(entries, ("LOWER_PRECISION_FP", "FP32", "FP32_SET_OPT_DTYPE", "PROMOTE")))
    if not {"mm", "linear"} <= lists.lower or "layer_norm" not in lists.single or "sum" not in lists.single_result:
        raise Unsupported(f"torch {torch.__version__} writes its autocast lists in another way", _ADVICE)
    return lists


@contextmanager
def without_autocast() -> Iterator[None]:
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(DispatchKey.AutocastCPU)):
        yield


def compose(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a composite operator's own function, in C++."""
    return operator._op_dk(DispatchKey.CompositeImplicitAutograd, *args, **kwargs)


def compose_without_cudnn(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same, with torch's own kernels."""
    before = torch._C._get_cudnn_enabled()
    torch._C._set_cudnn_enabled(False)
    try:
        return compose(operator, args, kwargs)
    finally:
        torch._C._set_cudnn_enabled(before)


def record_memory_history() -> None:
    """Have CUDA's allocator note each allocation and release with its Python stack, from now on."""
    torch.cuda.memory._record_memory_history(stacks="python")


def memory_history() -> dict[str, Any]:
    """What it has noted, as PyTorch's memory viewer wants it. Ends the noting."""
    snapshot: dict[str, Any] = torch.cuda.memory._snapshot()
    torch.cuda.memory._record_memory_history(enabled=None)
    return snapshot


def on_out_of_memory(observer: Callable[[int, int, int, int], None]) -> None:
    """Call `observer(device, requested, card's total, card's free)` in bytes when a card cannot serve a request.

    For the rest of the process: torch has no way to take it back.
    """
    torch._C._cuda_attach_out_of_memory_observer(observer)


@contextmanager
def own_kernels() -> Iterator[Any]:
    """A library whose kernels of torch's operators hold while the block runs."""
    library = torch.library.Library("aten", "IMPL")
    try:
        yield library
    finally:
        library._destroy()


@contextmanager
def layers_fuse(keeps_padding: Callable[[], None]) -> Iterator[None]:
    """Let torch's layers of attention take their fused path in evaluation while modes are entered, as without them.

    They ask whether an argument has a `__torch_function__` of its own, and are told yes where a mode is entered.
    `nn.TransformerEncoder` is still told so: without its padding, what it holds would depend on values.
    `keeps_padding` is called then.
    """
    asked = torch.overrides.has_torch_function
    layers = {torch.nn.MultiheadAttention.forward.__code__, torch.nn.TransformerEncoderLayer.forward.__code__}
    encoder = torch.nn.TransformerEncoder.forward.__code__

    def has_torch_function(arguments: Any) -> bool:
        code = sys._getframe(1).f_code
        if code in layers:
            return any(_has_own_torch_function(type(argument)) for argument in arguments)
        if code is encoder:
            keeps_padding()
        return bool(asked(arguments))

    with Patches() as patches:
        patches.set(torch.overrides, "has_torch_function", has_torch_function)
        yield


def _has_own_torch_function(kind: type) -> bool:
    if not issubclass(kind, torch.Tensor) or kind in {torch.Tensor, torch.nn.Parameter, FakeTensor}:
        return False
    return getattr(kind, "__torch_function__", None) is not torch._C._disabled_torch_function_impl


def sdp_priority() -> tuple[str, ...]:
    """The attention kernels in the order that the program, or torch, prefers them."""
    names = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}
    return tuple(names[number] for number in torch._C._get_sdp_priority_order() if number in names)


def is_entered(mode: Any) -> bool:
    """Whether a mode above autograd sees the calls that are made now: in what a mode calls, it does not."""
    return mode in torch.overrides._get_current_function_mode_stack()


def entered_modes() -> Callable[[], AbstractContextManager[None]]:
    """The modes of this thread, to be entered in another: PyTorch's modes belong to a thread."""
    above, below = torch.overrides._get_current_function_mode_stack(), _get_current_dispatch_mode_stack()

    @contextmanager
    def entered() -> Iterator[None]:
        with ExitStack() as stack:
            for mode in below:
                _push_mode(mode)
                stack.callback(_pop_mode)
            for mode in above:
                stack.enter_context(mode)
            yield

    return entered


def is_composite(operator: Any) -> bool:
    """Whether an overload (`torch.ops.aten.linear.default`) only calls other operators."""
    # What fake tensors ask of themselves (`prim::device`) is no operator of the dispatcher.
    return operator.namespace != "prim" and bool(
        operator.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)
    )


@contextmanager
def unseen() -> Iterator[None]:
    """What runs in the block passes by all modes."""
    with without_torch_function(), _disable_current_modes():
        yield


def creates_graph(arguments: tuple[Any, ...]) -> bool:
    """Of the arguments of a backward pass, less its roots."""
    return len(arguments) > 2 and bool(arguments[2])


nodes_made: Callable[[], int] = torch._C._autograd._get_sequence_nr
"""How many autograd nodes this thread has made: they are numbered."""


def reaches_nodes(roots: Iterable[Any], numbers: Sequence[range]) -> bool:
    """Whether the graph of these tensors has one of the nodes with these numbers."""
    waiting = [node for root in roots if (node := grad_fn(root)) is not None]
    seen = set(waiting)
    for node in waiting:  # grows meanwhile
        if any(node._sequence_nr() in made for made in numbers):
            return True
        new = {child for child, _ in node.next_functions if child is not None} - seen
        seen |= new
        waiting.extend(new)
    return False


running_node: Callable[[], Any] = torch._C._current_autograd_node
"""The autograd node whose backward runs in this thread; None outside of backward passes."""


def grad_fn(tensor: torch.Tensor) -> Any:
    """The node that made a tensor; None for what has none, and for what torch refuses to give one: no whole tensor any
    more, or a view that was made without grad and written to, as `nn.Embedding(padding_idx=0)` does."""
    try:
        return tensor.grad_fn
    except RuntimeError:
        return None


def unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """What a transform of `torch.func` (`vmap`, `grad`) has wrapped, however often; else the tensor itself."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


_saved_names: dict[type, tuple[str, ...]] = {}


def saved_tensors(node: Any) -> Iterator[torch.Tensor]:
    """What an autograd node has saved for its backward pass, and not yet freed."""
    kind = type(node)
    if kind not in _saved_names:
        _saved_names[kind] = tuple(name for name in dir(kind) if name.startswith("_saved_")) or ("saved_tensors",)
    for name in _saved_names[kind]:
        try:
            saved = getattr(node, name, None)
        except RuntimeError:  # freed by a backward pass
            continue
        for item in saved if isinstance(saved, (tuple, list)) else (saved,):
            if isinstance(item, torch.Tensor):
                yield item


# ---- C++: what torch lacks without a card


@contextmanager
def cuda_without_a_card() -> Iterator[None]:
    """Let autograd and the accelerator's queries accept `cuda` where there is no card; where there is one, they do.

    The device guard stays when the block ends (nothing else asks for it); the hooks are put back.
    Raises Unsupported where torch's symbols are not as known.
    """
    if torch.cuda.device_count() > 0:
        yield
        return
    if sys.platform == "win32":
        raise Unsupported("predicting without a card needs Linux or macOS", _ADVICE)
    _register_device_guard()
    hooks = _CudaHooks()
    hooks.install()
    try:
        yield
    finally:
        hooks.remove()


def _library(name: str) -> ctypes.CDLL:
    for suffix in (".so", ".dylib"):
        path = Path(torch.__file__).parent / "lib" / (name + suffix)
        if path.exists():
            return ctypes.CDLL(str(path))
    raise Unsupported(f"torch {torch.__version__} has no library {name}", _ADVICE)


_alive: list[object] = []
"""What C++ points to, for as long as the process lives."""


def _register_device_guard() -> None:
    """Give CUDA torch's own guard that does nothing.

    `_ensureCUDADeviceGuardSet` makes one, but only in place of another: so a stand-in, all of whose virtual functions
    answer 0, is put there first.
    """
    try:
        table_type = ctypes.c_void_p * (_CUDA + 1)
        table = table_type.in_dll(_library("libc10"), "_ZN3c104impl26device_guard_impl_registryE")
    except ValueError as error:
        raise Unsupported(f"torch {torch.__version__} keeps its device guards elsewhere", _ADVICE) from error
    if table[_CUDA]:
        # A CUDA build has a guard, which torch replaces if it finds no card (or did already).
        torch._C._ensureCUDADeviceGuardSet()
        return
    zero = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(lambda _self: 0)
    slots = (ctypes.c_void_p * 64)(*[ctypes.cast(zero, ctypes.c_void_p).value] * 64)
    stand_in = (ctypes.c_void_p * 4)(ctypes.addressof(slots), 0, 0, 0)
    _alive.extend([zero, slots, stand_in])
    table[_CUDA] = ctypes.addressof(stand_in)
    torch._C._ensureCUDADeviceGuardSet()
    if table[_CUDA] == ctypes.addressof(stand_in):
        table[_CUDA] = None
        raise Unsupported(f"torch {torch.__version__} did not set its own device guard", _ADVICE)


def virtual_slots(header: str) -> dict[str, int]:
    """The slots of the virtual functions that a C++ class declares first: `header` is its source.

    A virtual destructor has two. Only true of a class without bases.
    """
    slots: dict[str, int] = {}
    free = 0
    for match in re.finditer(r"^\s*virtual\s[^;{]*?(~?\w+)\s*\(", header, re.MULTILINE):
        name = match.group(1)
        slots[name] = free
        free += 2 if name.startswith("~") else 1
    return slots


class _CudaHooks:
    """at::getCUDAHooks(), the answers of the CUDA library to the rest of torch: in a CPU build it says there is none.

    Its virtual table is copied and some slots of the copy replaced. Which ones is read from the header in the wheel.
    """

    _YES = ("isBuilt", "hasPrimaryContext", "deviceCount")
    _ZERO = ("init", "setCurrentDevice", "getCurrentDevice", "exchangeDevice", "maybeExchangeDevice", "isPinnedPtr")

    def install(self) -> None:
        include = Path(torch.__file__).parent / "include" / "ATen" / "detail"
        try:
            slots = virtual_slots((include / "AcceleratorHooksInterface.h").read_text())
            own = virtual_slots((include / "CUDAHooksInterface.h").read_text())
            find_hooks = _library("libtorch_cpu")["_ZN2at6detail12getCUDAHooksEv"]
        except (OSError, AttributeError) as error:
            raise Unsupported(f"torch {torch.__version__} hides its CUDA hooks: {error}", _ADVICE) from error
        missing = [name for name in self._YES + self._ZERO if name not in slots]
        if missing:
            raise Unsupported(f"torch {torch.__version__} has no CUDA hooks {', '.join(missing)}", _ADVICE)
        find_hooks.restype = ctypes.c_void_p
        self._pointer = ctypes.c_void_p.from_address(find_hooks())
        self._original = self._pointer.value
        assert self._original is not None
        count = 2 + len(slots) + 1 + len(own)
        old = (ctypes.c_void_p * count).from_address(self._original - _VTABLE_HEADER)
        new = (ctypes.c_void_p * count)(*old)
        yes = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(lambda _self: True)
        zero = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(lambda _self, _argument: 0)
        _alive.extend([yes, zero, new])
        for function, names in ((yes, self._YES), (zero, self._ZERO)):
            for name in names:
                new[2 + slots[name]] = ctypes.cast(function, ctypes.c_void_p).value
        self._pointer.value = ctypes.addressof(new) + _VTABLE_HEADER

    def remove(self) -> None:
        self._pointer.value = self._original


# ---- Python: what torch's fake tensors lack


@contextmanager
def fake_errors_told_once() -> Iterator[None]:
    """torch logs what a function of shapes raises, with its whole traceback, and then raises it."""
    log = fake_tensor.log
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def fake_cuda_tensors() -> Iterator[None]:
    """Adjust torch so that fake tensors on `cuda` are moved, optimized and swapped as real ones are."""
    with Patches() as patches:
        patches.set(FakeTensorMode, "avoid_device_init", property(lambda _mode: True))
        patches.set(fake_tensor, "init_gpu_context", lambda _device: None)
        patches.set(torch.utils, "swap_tensors", _swap_tensors(torch.utils.swap_tensors))
        patches.set(torch._subclasses, "FakeTensor", _FakeTensorToTorch)
        if not torch.backends.cudnn.is_available():
            patches.set(torch._C, "_conv_determine_backend_memory_format", _cudnn_memory_format)
        # Which implementation an optimizer takes goes by the exact type of its parameters.
        for module in (optimizers, _foreach_utils):
            types = [*module._foreach_supported_types, FakeTensor]
            patches.set(module, "_foreach_supported_types", types)
        lifts, swaps = torch._C._only_lift_cpu_tensors(), torch.__future__.get_swap_module_params_on_conversion()
        torch._C._set_only_lift_cpu_tensors(True)
        patches.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        torch.__future__.set_swap_module_params_on_conversion(True)
        patches.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        yield


def _cudnn_memory_format(input: torch.Tensor, weight: torch.Tensor, _backend: Any) -> torch.memory_format:
    """That of a convolution on a card (`cudnn_conv_suggest_memory_format` in ATen/native/ConvUtils.h): a build
    without cuDNN would never choose channels last."""
    if torch.float64 in {input.dtype, weight.dtype} or not torch.backends.cudnn.enabled:
        return torch.contiguous_format
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(weight.dim())
    return last if last in map(suggest_memory_format, (input, weight)) else torch.contiguous_format


class _OnlyToTorch(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return _asked_by_torch() and isinstance(instance, FakeTensor)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return _asked_by_torch() and issubclass(subclass, FakeTensor)


class _FakeTensorToTorch(metaclass=_OnlyToTorch):
    """In the place of `torch._subclasses.FakeTensor`, by which libraries find out that they are traced, and then do
    otherwise (transformers keeps masks that it would drop): nothing is traced here."""


def _asked_by_torch() -> bool:
    asking: str = sys._getframe(2).f_globals.get("__name__", "")
    return asking.partition(".")[0] == "torch"


def _swap_tensors(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """`module.to()` swaps each parameter with its copy; torch refuses tensors with weak references, as the memory of
    the fake mode has to each."""

    def swap(one: Any, other: Any) -> None:
        if not isinstance(one, FakeTensor) and not isinstance(other, FakeTensor):
            original(one, other)
            return
        one.__class__, other.__class__ = other.__class__, one.__class__
        one.__dict__, other.__dict__ = other.__dict__, one.__dict__
        torch._C._swap_tensor_impl(one, other)

    return swap


@contextmanager
def loading_to_cuda() -> Iterator[None]:
    """Let `torch.load` put tensors on `cuda`: their storages are read to the host, and moved as tensors are rebuilt."""
    meant_for_cuda = WeakIdKeyDictionary()

    def mark(storage: Any, location: str) -> Any:
        if not location.startswith("cuda"):
            return None
        meant_for_cuda[storage] = None
        return storage

    def to_cuda(storage: Any, *_args: Any, **_kwargs: Any) -> Any:
        return mark(storage, "cuda")

    rebuild = torch._utils._rebuild_tensor

    def rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any) -> Any:
        untyped = storage._untyped_storage
        if untyped not in meant_for_cuda:
            return rebuild(storage, offset, size, stride)
        whole = meant_for_cuda[untyped]
        if whole is None:
            elements = untyped.nbytes() // storage.dtype.itemsize
            whole = meant_for_cuda[untyped] = rebuild(storage, 0, (elements,), (1,)).to("cuda")
        return whole.as_strided(size, stride, offset)

    with storage_locations(lambda _: None, mark), Patches() as patches:
        patches.set(torch.UntypedStorage, "cuda", to_cuda)
        patches.set(torch._utils, "_rebuild_tensor", rebuild_tensor)
        yield


@contextmanager
def storage_locations(tag: Callable[[Any], str | None], restore: Callable[[Any, str], Any]) -> Iterator[None]:
    """As `torch.serialization.register_package`, asked before all others, and taken back."""
    registry = torch.serialization._package_registry
    first = (-1, tag, restore)
    registry.insert(0, first)
    try:
        yield
    finally:
        registry.remove(first)


# ---- the self-test


def self_test(check: Callable[[], None], advice: str = _ADVICE) -> None:
    """Run `check` in a forked child, which may abort. Raises Unsupported, with the child's words, unless it returns."""
    if not hasattr(os, "fork"):
        raise Unsupported("predicting needs a system that can fork", advice)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _run_check(check, write)
    os.close(write)
    try:
        words = _read_all(read, _SELF_TEST_SECONDS)
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if words == b"ok":
        return
    if words:
        reason = words.decode(errors="replace")
    elif os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        reason = f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    else:
        reason = "no answer"
    raise Unsupported(f"torch {torch.__version__} fails the self-test of prediction: {reason}", advice)


def _run_check(check: Callable[[], None], write: int) -> None:
    """In the child. Never returns; the parent's exit handlers are not run, and what it would print goes nowhere."""
    faulthandler.disable()
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    try:
        check()
        os.write(write, b"ok")
    except BaseException as error:  # noqa: BLE001 - the parent is told
        os.write(write, f"{type(error).__name__}: {error}".encode()[:2000])
    finally:
        os.close(write)
        os._exit(0)


def _read_all(read: int, seconds: float) -> bytes:
    until = time.monotonic() + seconds
    words = b""
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([read], [], [], left)
        if not ready:
            break
        chunk = os.read(read, 4096)
        if not chunk:
            return words
        words += chunk
    return words
