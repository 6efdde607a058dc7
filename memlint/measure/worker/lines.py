"""Which line of the user's code is running, and which line made an autograd node.

A backward pass runs nodes, not lines. So each node carries a tag with the line whose forward operation made it; what
a node allocates belongs to that line.
"""

from __future__ import annotations

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
_OWN_FRAMES = 3
"""From the function that asks for a line to that which is called for one of torch's functions, both included."""
_without_torch_function = compat.without_torch_function
_is_grad_enabled = torch.is_grad_enabled


class Frames:
    """Finds the innermost frame of the user's code. One answer a code object and instruction, kept."""

    def __init__(self) -> None:
        self._paths: dict[int, str | None] = {}
        """By the identity of a code object, whose hash is slow."""
        self._places: dict[tuple[int, int], Place] = {}
        """By code object and instruction: to find the line of one, Python reads through a table."""
        self._of_lines: dict[tuple[int, int], Place] = {}
        self._codes: list[CodeType] = []
        """Kept, since they are known by their identity."""

    def innermost(self, skip: int = 0) -> Place | None:
        """Leaves out that many of the frames that call."""
        try:
            frame: FrameType | None = sys._getframe(skip + 1)
        except ValueError:  # a thread of the engine's own has no frames but ours
            return None
        paths = self._paths
        while frame is not None:
            code = frame.f_code
            key = id(code)
            path = paths[key] if key in paths else self._learn(code)
            if path is not None:
                return self._places.get((key, frame.f_lasti)) or self._place(code, path, frame)
            frame = frame.f_back
        return None

    def _learn(self, code: CodeType) -> str | None:
        self._codes.append(code)
        path = self._paths[id(code)] = _path(code)
        return path

    def _place(self, code: CodeType, path: str, frame: FrameType) -> Place:
        line = frame.f_lineno or code.co_firstlineno
        place = self._of_lines.get((id(code), line))
        if place is None:
            place = Place(path, line, getattr(code, "co_qualname", code.co_name))
            self._of_lines[id(code), line] = place
        self._places[id(code), frame.f_lasti] = place
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

    __slots__ = ("live", "node")

    def __init__(self, node: LiveNode, live: dict[int, LiveNode]) -> None:
        self.node, self.live = node, live

    def __del__(self) -> None:
        self.live.pop(id(self), None)


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

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._tracker.call(func, args, kwargs)
        if not _is_grad_enabled():
            pass  # no node was made
        elif isinstance(result, (torch.Tensor, tuple, list)):
            self.tag_results(result)
        elif result is None and args and isinstance(args[0], torch.Tensor):  # x[...] = y
            self.tag_results(args[0])
        return result

    def tag_results(self, result: object) -> None:
        with _without_torch_function():
            if type(result) is torch.Tensor:
                node = compat.grad_fn(result)
                if node is not None and _KEY not in node.metadata:
                    self._tag([node])
            else:
                nodes = [node for node in _nodes(result) if _KEY not in node.metadata]
                if nodes:
                    self._tag(list(dict.fromkeys(nodes)))

    def _tag(self, nodes: list[Any]) -> None:
        """Tag different nodes, and those that they reach."""
        step = self._steps_ended()
        seen = set(nodes)
        crossings = 0
        new: list[tuple[Any, bool, bool]] = []
        for node in nodes:  # grows meanwhile
            crosses = False
            below = node.next_functions
            for child, _ in below:
                if child is None:
                    continue
                tag = child.metadata.get(_KEY)
                if tag is None:
                    if child not in seen:
                        seen.add(child)
                        nodes.append(child)
                    continue
                known: LiveNode = tag.node
                depth = known.crossings
                if known.step < step and child.next_functions:
                    crosses = True
                    depth += 1
                crossings = max(crossings, depth)
            new.append((node, crosses, bool(below)))
        place = self._frames.innermost(_OWN_FRAMES)
        live = LiveNode(place, step, crossings, False)
        for node, crosses, inner in new:
            known = live if inner or not crossings else live._replace(crossings=0)
            if crosses:
                known = known._replace(crosses=True)
            node.metadata[_KEY] = tag = _Tag(known, self.live)
            if inner:
                self.live[id(tag)] = known
        self.latest = len(self.live)


def tagged(node: Any) -> LiveNode | None:
    """What is known of a node: nothing, if no operation of the user's made it."""
    tag = node.metadata.get(_KEY)
    return tag.node if tag is not None else None


def place_of(node: Any) -> Place | None:
    """The forward line of an autograd node."""
    known = tagged(node)
    return known.place if known is not None else None


def running_node_place() -> Place | None:
    """That of the one that is running."""
    node = compat.running_node()
    return place_of(node) if node is not None else None


def _nodes(result: object) -> Iterator[Any]:
    if isinstance(result, torch.Tensor):
        node = compat.grad_fn(result)
        if node is not None:
            yield node
    elif isinstance(result, (tuple, list)):
        for item in result:
            yield from _nodes(item)
