"""One measurement: the instrument around the user's code, and the recording that it leaves."""

from __future__ import annotations

import functools
import gc
import linecache
import os
import sys
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.nn.modules import module as nn_module
from torch.optim import optimizer as torch_optimizer
from torch.utils.data import dataloader

from memlint.measure.job import Job, Layer
from memlint.measure.recording import AllocatorPeaks, Assumption, Keeper, Phase, Recording, Step
from memlint.measure.user_code import is_user_file
from memlint.measure.worker import compat
from memlint.measure.worker.backend import Backend
from memlint.measure.worker.categories import Categories
from memlint.measure.worker.fingerprints import Fingerprinter
from memlint.measure.worker.growth import Growth
from memlint.measure.worker.lines import Calls, Frames, NodeTags, warnings_at_user_lines
from memlint.measure.worker.names import user_frames
from memlint.measure.worker.patching import Patches
from memlint.measure.worker.saved import noting_saved_tensors
from memlint.measure.worker.steps import Loaders, Mark, Steps
from memlint.measure.worker.threads import followed_threads, wake_main_thread, woken_by_a_signal
from memlint.measure.worker.tracker import Tracker


class StopMeasuring(BaseException):
    """Enough steps were seen. Raised through the user's code, and swallowed by the session."""


class _Here(threading.local):
    """Of each thread."""

    module_depth = 0


class Session:
    """`with session: run the user's code`, then `session.recording()`.

    Leaves the block quietly once `job.steps` steps were seen. Lets the user's exceptions through; there is a recording
    of what ran until then. Python's cycle collector is off in the block: when it runs depends on how many objects the
    instrument makes, and the numbers must not.
    """

    def __init__(self, job: Job, backend: Backend, progress: Callable[[int], None] | None = None) -> None:
        """`progress` is told after each step how many there were."""
        self._job = job
        self._progress = progress
        self._backend = backend
        self._frames = Frames() if Layer.LINES in job.layers or Layer.GROWTH in job.layers else None
        self._tracker = Tracker(backend, self._frames)
        self._tags = NodeTags(self._tracker, self._frames, self._steps_ended) if self._frames is not None else None
        self._calls_mode = self._tags or Calls(self._tracker)
        self._categories = Categories(self._tracker)
        self._steps = Steps(self._mark)
        self._growth = None
        if self._tags is not None and Layer.GROWTH in job.layers:
            self._growth = Growth(self._tracker, self._tags, self._sources)
        self._fingerprints = Fingerprinter(self._categories) if Layer.FINGERPRINTS in job.layers else None
        self._assumptions: list[Assumption] = []
        self._allocator: list[AllocatorPeaks | None] = []
        """What the backend said at the end of each step."""
        self._stack = ExitStack()
        self._started = time.perf_counter()
        self._finished = False
        self._ended: int | None = None
        self._calls = 0
        self._closings = 0
        self._here = _Here()
        self._turn = threading.RLock()
        """Held while a step is closed: the program's threads may call models at the same time."""
        self._generation_noticed = False
        self._patches = Patches()
        self._backward: list[bool] = []
        """Of each backward pass that is running, the outermost first: whether it creates a graph."""
        self._made_backwards: list[range] = []
        """The numbers of the nodes that each backward pass has made which creates a graph."""
        self._loaders = Loaders(job.steps) if job.with_evaluation else None
        self._optimizer_calls = 0
        """How often an optimizer has stepped."""
        self._known: dict[int, weakref.ref[Any]] = {}
        self._tracker.recomputing = self._recomputing

    def __enter__(self) -> Session:
        self._started = time.perf_counter()
        with ExitStack() as stack:
            if gc.isenabled():
                gc.disable()
                stack.callback(gc.enable)
            gc.freeze()  # what was there before the user's code is not to be searched
            stack.callback(gc.unfreeze)
            stack.enter_context(self._backend.running(self._tracker))
            stack.enter_context(self._tracker)
            stack.enter_context(self._calls_mode)
            for hook in self._hooks():
                stack.enter_context(hook)
            stack.enter_context(self._patches)
            self._wrap()
            stack.enter_context(compat.layers_fuse(self._note_padding))
            stack.enter_context(self._noting_saved_tensors())
            stack.enter_context(warnings_at_user_lines())
            stack.enter_context(woken_by_a_signal(StopMeasuring))
            stack.enter_context(followed_threads(self._in_a_thread(compat.entered_modes())))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if kind is None:
            self._steps.ended(self._last_operation())
            self._after_closing(program_runs=False)
        self._end()
        self._stack.close()
        return kind is not None and issubclass(kind, StopMeasuring)

    def _noting_saved_tensors(self) -> AbstractContextManager[None]:
        return noting_saved_tensors(self._tracker) if Layer.SAVED_TENSORS in self._job.layers else nullcontext()

    def _in_a_thread(self, modes: Callable[[], AbstractContextManager[None]]) -> Callable[[Callable[[], None]], None]:
        def run_followed(run: Callable[[], None]) -> None:
            try:
                with modes(), self._noting_saved_tensors():
                    run()
            except StopMeasuring:
                wake_main_thread()

        return run_followed

    def _end(self) -> None:
        """What follows is the unwinding of the user's code: no part of the log."""
        if self._ended is None:
            self._ended = self._tracker.time()
            self._categories.mark_parameters()

    def call_repeatedly(self, function: Callable[[], object]) -> None:
        """Run a target that is a function, until enough was seen. A step is a call: what ends inside is none, unless
        the first call takes them all."""
        while True:
            self._calls += 1
            with self._watching():
                self._steps.call_started()
            result = function()
            if self._fingerprints is not None:
                self._fingerprints.given(result, self._tracker.time())
            del result
            with self._watching():
                self._steps.call_ended()

    def recording(self) -> Recording:
        storages, events, first = self._tracker.log(self._ended)
        spans = self._steps.spans
        ends = [span.end.time - first for span in spans]
        for storage in storages:
            if spans and storage.born >= spans[0].start.time - first:
                storage.step = bisect_right(ends, storage.born)
        recording = Recording(
            backend=self._backend.name,
            torch_version=torch.__version__,
            device=self._backend.device,
            warmup=self._job.warmup,
            layers=self._job.layers,
            storages=storages,
            events=events,
            steps=[self._step(number, first) for number in range(len(spans))],
            keepers=self._keepers(),
            assumptions=[*self._backend.assumptions, *self._assumptions, *self._out_of_order()],
            kernels=self._backend.kernels,
            excluded=[*self._backend.excluded, *self._not_reached()],
            fingerprints=self._fingerprints.result(spans) if self._fingerprints is not None else None,
            allocator_settings=os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF", ""),
        )
        self._backend.finish(recording)
        return recording

    def _out_of_order(self) -> Iterator[Assumption]:
        if self._tracker.in_native_threads:
            what = "threads of native code (torch.jit.fork) allocate in the order in which they happened to: no lines"
            yield Assumption(what, None)

    def _not_reached(self) -> Iterator[str]:
        trained = bool(self._steps.spans) and all(span.kind == "training" for span in self._steps.spans)
        if self._finished and trained and not self._job.with_evaluation:
            yield "what the program does after these training steps, such as an evaluation (`--with-evaluation`)"

    def _keepers(self) -> list[Keeper]:
        found = self._growth.keepers if self._growth is not None else []
        return [replace(keeper, storages=self._tracker.logged(keeper.storages)) for keeper in found]

    def _step(self, number: int, first: int) -> Step:
        span = self._steps.spans[number]
        arrived = [shape for at, shape in self._tracker.arrivals if span.start.time <= at < span.end.time]
        return Step(
            number=number,
            kind=span.kind,
            start=max(0, span.start.time - first),
            end=max(0, span.end.time - first),
            seconds=span.end.seconds - span.start.seconds,
            input_shapes=tuple(dict.fromkeys(arrived)),
            graph_nodes=span.end.graph_nodes if Layer.GROWTH in self._job.layers else None,
            allocator=self._allocator[number],
            unfinished=span.unfinished,
        )

    def _steps_ended(self) -> int:
        return len(self._steps.spans)

    def _sources(self) -> dict[str, str]:
        """The texts of the user's files that were loaded."""
        modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        paths = {path for path in modules if path and path.endswith(".py") and is_user_file(path)}
        paths.update(frame.f_code.co_filename for frame in user_frames())
        return {str(Path(path).absolute()): self._text(path) for path in paths}

    def _text(self, path: str) -> str:
        overlay = self._job.overlay.get(str(Path(path).absolute()))
        return overlay if overlay is not None else "".join(linecache.getlines(path))

    def _mark(self) -> Mark:
        nodes = len(self._tags.live) if self._tags is not None else 0
        return Mark(self._tracker.time(), time.perf_counter(), self._tracker.allocated, nodes)

    def _last_operation(self) -> Mark:
        nodes = self._tags.latest if self._tags is not None else 0
        return Mark(self._tracker.last_operation, time.perf_counter(), self._tracker.allocated, nodes)

    def _recomputing(self) -> bool:
        """Inside a backward pass, grad mode is on where a forward pass runs again, as in a checkpoint."""
        return bool(self._backward) and not self._backward[-1] and torch.is_grad_enabled()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Around what may close a step: does what is due at its end, and stops after the last one."""
        with self._turn:
            if self._finished:
                raise StopMeasuring
            yield
            self._stop_when_enough()

    def _stop_when_enough(self) -> None:
        if self._steps.begun and self._tracker.phase is Phase.SETUP:
            self._tracker.phase = Phase.FORWARD
        self._after_closing()
        if self._enough():
            self._finished = True
            self._end()
            raise StopMeasuring

    def _after_closing(self, program_runs: bool = True) -> None:
        if self._closings == self._steps.closings:
            return
        self._closings = self._steps.closings
        if self._progress is not None:
            self._progress(len(self._steps.spans))
        self._ask_allocator(len(self._steps.spans))
        self._categories.mark_parameters()
        self._categories.mark_kept_by_optimizer()
        if self._fingerprints is not None:
            self._fingerprints.step_ended()
        if self._growth is not None and program_runs:  # else its variables are gone
            self._growth.look(self._steps.spans, self._job.warmup, self._job.steps, last=self._enough())

    def _ask_allocator(self, steps: int) -> None:
        """A call may have taken the place of several steps that ended inside."""
        inside = [peaks for peaks in self._allocator[steps - 1 :] if peaks is not None]
        del self._allocator[steps - 1 :]
        while len(self._allocator) < steps:
            peaks = self._backend.step_ended(len(self._allocator))
            self._allocator.append(AllocatorPeaks.highest([*inside, peaks]) if peaks is not None else None)

    def _enough(self) -> bool:
        steps, wanted = self._steps, self._job.steps
        if steps.count("call") >= wanted:
            return True
        if self._calls > 1:
            return False
        patient = time.perf_counter() - self._started < self._job.timeout_seconds / 2
        evaluated = steps.count("evaluation") >= wanted
        if steps.count("training") >= wanted:
            return evaluated or not patient or not self._job.with_evaluation
        # A program that has made an optimizer will train: what it evaluates before must not end the run.
        return evaluated and not (steps.has_optimizer and patient)

    def _hooks(self) -> Iterator[Any]:
        yield _removing(nn_module.register_module_module_registration_hook(self._registered))
        yield _removing(nn_module.register_module_parameter_registration_hook(self._registered))
        yield _removing(nn_module.register_module_buffer_registration_hook(self._registered))
        yield _removing(nn_module.register_module_forward_pre_hook(self._forward_starts))
        yield _removing(nn_module.register_module_forward_hook(self._forward_ends, always_call=True))
        yield _removing(torch_optimizer.register_optimizer_step_pre_hook(self._optimizer_steps))
        yield _removing(torch_optimizer.register_optimizer_step_post_hook(self._optimizer_stepped))

    def _wrap(self) -> None:
        wrappers: list[tuple[Any, str, Callable[[Any], Any]]] = [
            (torch.optim.Optimizer, "__init__", self._noticing_optimizers),
            (dataloader._BaseDataLoaderIter, "__next__", self._noticing_batches),
            (torch.amp.GradScaler, "step", self._noticing_scaled_steps),
            (torch.UntypedStorage, "resize_", self._noticing_resizes),
            (torch, "compile", self._without_compiler),
            (torch.autograd, compat.RUN_BACKWARD, self._noticing_backward),
        ]
        if self._tags is not None:
            wrappers.append((torch.autograd.Function, "apply", self._tagging_functions))
        if self._growth is not None:
            wrappers.append((torch.Tensor, "register_hook", self._noticing_tensor_hooks))
        for owner, name, wrapper in wrappers:
            self._patches.set(owner, name, wrapper(getattr(owner, name)))

    def _registered(self, module: torch.nn.Module, _name: str, value: object) -> None:
        self._categories.saw_module(module)
        if isinstance(value, torch.nn.Module):
            self._categories.saw_module(value)
        self._notice_generation()

    def _notice_generation(self) -> None:
        """To generate a text is one call of the model, whatever number of tokens it takes."""
        generation = sys.modules.get("transformers.generation.utils")
        mixin = getattr(generation, "GenerationMixin", None)
        if mixin is None or self._generation_noticed:
            return
        self._generation_noticed = True
        self._patches.set(mixin, "generate", self._as_one_call(mixin.generate))

    def _as_one_call(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(generate)
        def noticed_generate(model: torch.nn.Module, *arguments: Any, **keywords: Any) -> Any:
            self._forward_starts(model, None)
            result = None
            try:
                result = generate(model, *arguments, **keywords)
                return result
            finally:
                self._forward_ends(model, None, result)

        return noticed_generate

    def _forward_starts(self, module: torch.nn.Module, _inputs: object) -> None:
        self._categories.saw_module(module)
        if self._here.module_depth == 0 and compat.running_node() is None and _is_model(module):
            if not self._steps.spans:  # at each step's end, from then on
                self._categories.mark_parameters()
            with self._watching():
                self._steps.model_called(self._key(module, id(module)))
        self._here.module_depth += 1

    def _forward_ends(self, _module: object, _inputs: object, output: object) -> None:
        here = self._here
        here.module_depth -= 1
        if self._fingerprints is not None and here.module_depth == 0 and compat.running_node() is None:
            self._fingerprints.given(output, self._tracker.time())

    def _key(self, item: object, key: int) -> int:
        """What stands for an optimizer or a model as long as it lives."""
        if id(item) not in self._known:
            self._known[id(item)] = weakref.ref(item, functools.partial(self._gone, id(item), key))
        return key

    def _gone(self, at: int, key: int, _: object) -> None:
        del self._known[at]
        self._steps.gone(key)

    def _optimizer_steps(self, optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> Any:
        self._categories.mark_trained(optimizer)
        if self._fingerprints is not None:
            self._fingerprints.before_optimizer(optimizer, _trained_by(optimizer))
        self._tracker.phase, self._tracker.optimizing = Phase.OPTIMIZER, threading.get_ident()
        if keywords.get("closure") is not None:
            return arguments, {**keywords, "closure": self._in_forward_phase(keywords["closure"])}
        if len(arguments) > 1 and callable(arguments[1]):
            return (arguments[0], self._in_forward_phase(arguments[1]), *arguments[2:]), keywords
        return None

    def _in_forward_phase(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        """The closure that an optimizer calls runs the model."""

        @functools.wraps(closure)
        def run_closure(*arguments: Any, **keywords: Any) -> Any:
            self._tracker.phase = Phase.FORWARD
            try:
                return closure(*arguments, **keywords)
            finally:
                self._tracker.phase = Phase.OPTIMIZER

        return run_closure

    def _optimizer_stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._tracker.phase = Phase.FORWARD
        self._optimizer_calls += 1
        self._categories.mark_state(optimizer)
        if self._loaders is not None:
            self._loaders.trained()
        with self._watching():
            self._steps.optimizer_stepped(self._key(optimizer, _trained_by(optimizer)))

    def _noticing_optimizers(self, init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def noticed_init(optimizer: torch.optim.Optimizer, *arguments: Any, **keywords: Any) -> None:
            self._steps.has_optimizer = True
            init(optimizer, *arguments, **keywords)

        return noticed_init

    def _noticing_batches(self, next_batch: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(next_batch)
        def noticed_next(iterator: Any) -> Any:
            with self._watching():
                self._steps.batch_asked(id(iterator))
                over = self._loaders is not None and self._loaders.is_over(
                    iterator, self._steps.count("training"), torch.is_grad_enabled()
                )
            if over:
                raise StopIteration
            return next_batch(iterator)

        return noticed_next

    def _noticing_scaled_steps(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A scaler leaves the optimizer's step out where a gradient is not finite: a step all the same."""

        @functools.wraps(step)
        def scaled_step(scaler: Any, optimizer: torch.optim.Optimizer, *arguments: Any, **keywords: Any) -> Any:
            before = self._optimizer_calls
            result = step(scaler, optimizer, *arguments, **keywords)
            if self._optimizer_calls == before:
                self._optimizer_stepped(optimizer)
            return result

        return scaled_step

    def _noticing_resizes(self, resize: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(resize)
        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            self._tracker.storage_resized(storage)
            return result

        return resize_

    def _without_compiler(self, _compile: Callable[..., Any]) -> Callable[..., Any]:
        def uncompiled(model: Any = None, **_: Any) -> Any:
            place = self._frames.innermost() if self._frames is not None else None
            self._assumptions.append(Assumption("torch.compile left out: the code ran eagerly", place))
            return model if model is not None else lambda function: function

        return uncompiled

    def _note_padding(self) -> None:
        place = self._frames.innermost() if self._frames is not None else None
        what = "an encoder keeps its padding: on a card it may leave it out, as the mask's values say"
        self._assume_once(Assumption(what, place, effect="upper bound"))

    def _assume_once(self, assumed: Assumption) -> None:
        if assumed not in self._assumptions:
            self._assumptions.append(assumed)

    def _tagging_functions(self, apply: Callable[..., Any]) -> Any:
        def tagged_apply(cls: type[torch.autograd.Function], *arguments: Any, **keywords: Any) -> Any:
            result = apply.__func__(cls, *arguments, **keywords)  # type: ignore[attr-defined]
            assert self._tags is not None
            self._tags.tag_results(result)
            return result

        return classmethod(tagged_apply)

    def _noticing_tensor_hooks(self, register: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(register)
        def register_hook(tensor: torch.Tensor, hook: Callable[..., Any]) -> Any:
            code = getattr(hook, "__code__", None)
            if code is not None and self._growth is not None and self._frames is not None:
                self._growth.tensor_hooks[code] = self._frames.innermost()
            return register(tensor, hook)

        return register_hook

    def _noticing_backward(self, run: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(run)
        def run_backward(roots: Any, *arguments: Any, **keywords: Any) -> Any:
            if self._fingerprints is not None:
                self._fingerprints.differentiated(roots, self._tracker.time())
            if self._made_backwards:
                self._note_order(roots)
            # Who calls `loss.backward()` calls it from a mode, which does not see what a checkpoint runs again.
            again = nullcontext() if compat.is_entered(self._calls_mode) else self._calls_mode
            with self._differentiating(compat.creates_graph(arguments)), again:
                return run(roots, *arguments, **keywords)

        return run_backward

    def _note_order(self, roots: Any) -> None:
        """A card's pass has a thread of its own, which numbers the nodes that it makes: a second pass goes by the
        numbers. In such a thread, results would differ in their last bits from the program's."""
        if self._backend.name == "cpu" and compat.reaches_nodes(roots, self._made_backwards):
            place = self._frames.innermost() if self._frames is not None else None
            what = "the graph of a gradient (create_graph=True) is run backwards in the CPU's order, not in a card's"
            self._assume_once(Assumption(what, place, effect="inexact"))

    @contextmanager
    def _differentiating(self, create_graph: bool) -> Iterator[None]:
        outermost = compat.running_node() is None
        if outermost:
            with self._watching():
                self._steps.backward_started()
        caller = self._tracker.backward_caller
        # A pass within a pass, as a checkpoint's, may be asked for in a thread of autograd's, which has no user's line.
        here = self._frames.innermost() if self._frames is not None else None
        self._tracker.backward_caller = here or caller
        if create_graph and self._growth is not None:
            self._growth.created_graphs = self._tracker.backward_caller
        self._backward.append(create_graph)
        made_before = compat.nodes_made()
        try:
            yield
        finally:
            if create_graph:
                self._made_backwards.append(range(made_before, compat.nodes_made()))
            self._backward.pop()
            self._tracker.backward_caller = caller
        if outermost:
            self._categories.mark_gradients()
            if self._fingerprints is not None:
                self._fingerprints.backward_ended()


@contextmanager
def _removing(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _is_model(module: torch.nn.Module) -> bool:
    """Whether it has parameters: who encodes a data set with a module that has none takes no step."""
    return next(module.parameters(), None) is not None


def _trained_by(optimizer: torch.optim.Optimizer) -> int:
    """Optimizers are told apart by what they train: a program may make a new one each step."""
    return next((id(parameter) for group in optimizer.param_groups for parameter in group["params"]), id(optimizer))
