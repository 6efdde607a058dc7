"""Which line of the user's code is running, and which line made an autograd node.

A backward pass runs nodes, not lines. So each node carries a tag with the line whose forward operation made it; what
a node allocates belongs to that line.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import torch
from torch.overrides import TorchFunctionMode

from memlint.measure.recording import Place
from memlint.measure.user_code import is_memlint_file, is_user_file
from memlint.measure.worker import compat
from memlint.measure.worker.patching import Patches

if TYPE_CHECKING:
    from memlint.measure.worker.tracker import Tracker

_KEY = "memlint"


class Frames:
    """Finds the innermost frame of the user's code. One answer a code object, kept."""

    def __init__(self) -> None:
        self._paths: dict[int, str | None] = {}
        """By the identity of a code object, whose hash is slow."""
        self._places: dict[tuple[int, int], Place] = {}
        self._codes: list[CodeType] = []
        """Kept, since they are known by their identity."""

    def innermost(self) -> Place | None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            try:
                path = self._paths[id(code)]
            except KeyError:
                self._codes.append(code)
                path = self._paths[id(code)] = _path(code)
            if path is not None:
                return self._place(code, path, frame.f_lineno)
            frame = frame.f_back
        return None

    def _place(self, code: CodeType, path: str, line: int | None) -> Place:
        key = (id(code), line or code.co_firstlineno)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place(path, key[1], getattr(code, "co_qualname", code.co_name))
        return place


def _path(code: CodeType) -> str | None:
    if not is_user_file(code.co_filename):
        return None
    return str(Path(code.co_filename).absolute())


@contextmanager
def warnings_at_user_lines() -> Iterator[None]:
    """What torch warns of while it is called by a mode of ours is shown at the user's line, not at ours."""
    frames = Frames()
    show = warnings.showwarning

    def show_at_user_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        place = frames.innermost() if is_memlint_file(filename) else None
        if place is not None:
            filename, lineno, line = place.path, place.line, None
        show(message, category, filename, lineno, file, line)

    with Patches() as patches:
        patches.set(warnings, "showwarning", show_at_user_line)
        yield


class LiveNode(NamedTuple):
    """An autograd node that is alive."""

    place: Place | None
    step: int
    """How many steps had ended when it was made."""
    crossings: int
    """How many times the graph below it goes from a step to an earlier one, along the path where it does so most."""
    crosses: bool
    """Whether it refers itself to what an earlier step has made."""


class _Tag:
    """Lives in a node's metadata, as long as the node."""

    __slots__ = ("live", "node", "serial")

    def __init__(self, node: LiveNode, serial: int, live: dict[int, LiveNode]) -> None:
        self.node, self.serial, self.live = node, serial, live

    def __del__(self) -> None:
        self.live.pop(self.serial, None)


class Calls(TorchFunctionMode):
    """Runs each call of one of torch's functions in the backend's way."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._tracker.call(func, args, kwargs)


class NodeTags(Calls):
    """Tags the autograd nodes that a call makes with the line that calls.

    One call may make several nodes, so all untagged ones that its results reach are of this call.
    """

    def __init__(self, tracker: Tracker, frames: Frames, steps_ended: Callable[[], int]) -> None:
        super().__init__(tracker)
        self.live: dict[int, LiveNode] = {}
        """The nodes alive now, less those that only add up a leaf's gradient."""
        self.latest = 0
        """How many were alive when the last one was made."""
        self._frames = frames
        self._steps_ended = steps_ended
        self._serials = itertools.count()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._tracker.call(func, args, kwargs)
        if not torch.is_grad_enabled():
            pass  # no node was made
        elif isinstance(result, (torch.Tensor, tuple, list)):
            self.tag_results(result)
        elif result is None and args and isinstance(args[0], torch.Tensor):  # x[...] = y
            self.tag_results(args[0])
        return result

    def tag_results(self, result: object) -> None:
        with compat.without_torch_function():
            found = [compat.grad_fn(result)] if type(result) is torch.Tensor else _nodes(result)
            nodes = [node for node in found if node is not None and _KEY not in node.metadata]
            if nodes:
                self._tag(nodes)

    def _tag(self, nodes: list[Any]) -> None:
        step = self._steps_ended()
        new: list[tuple[Any, bool, bool]] = []
        seen = set()
        crossings = 0
        while nodes:
            node = nodes.pop()
            if node in seen:
                continue
            seen.add(node)
            crosses = False
            children = node.next_functions
            for child, _ in children:
                if child is None:
                    continue
                tag = child.metadata.get(_KEY)
                if tag is None:
                    nodes.append(child)
                elif child.next_functions:
                    below: LiveNode = tag.node
                    crosses = crosses or below.step < step
                    crossings = max(crossings, below.crossings + (below.step < step))
            new.append((node, crosses, bool(children)))
        place = self._frames.innermost()
        for node, crosses, inner in new:
            serial = next(self._serials)
            live = LiveNode(place, step, crossings, crosses)
            node.metadata[_KEY] = _Tag(live, serial, self.live)
            if inner:
                self.live[serial] = live
        self.latest = len(self.live)


def tagged(node: Any) -> LiveNode | None:
    """What is known of a node: nothing, if no operation of the user's made it."""
    tag = node.metadata.get(_KEY)
    return tag.node if tag is not None else None


def running_node_place() -> Place | None:
    """The forward line of the autograd node that is running."""
    node = compat.running_node()
    known = tagged(node) if node is not None else None
    return known.place if known is not None else None


def _nodes(result: object) -> Iterator[Any]:
    if isinstance(result, torch.Tensor):
        node = compat.grad_fn(result)
        if node is not None:
            yield node
    elif isinstance(result, (tuple, list)):
        for item in result:
            yield from _nodes(item)
