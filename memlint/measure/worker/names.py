"""What the code calls an object, and which of its lines fills it."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CellType, FrameType, FunctionType, GeneratorType
from typing import Any

import torch

from memlint.measure.recording import Place
from memlint.measure.user_code import is_user_file
from memlint.measure.worker.mutations import Mutation, Source

_DEPTH = 4
"""How many objects may lie between a container and the variable that names it: `trainer.history["loss"]`."""
_OPTIMIZED = 0x1
"""CO_OPTIMIZED: the frame of a function, whose `f_locals` is a copy (up to Python 3.12)."""
_REGISTERED = frozenset({"_buffers", "_parameters", "_modules"})
"""Where an `nn.Module` keeps what was registered."""
_SEQUENCES = (list, tuple, set, frozenset, deque)


@dataclass(frozen=True)
class Name:
    """`chain` in words of the code, from the variable on; `function` and `path` say where that variable lives."""

    chain: tuple[str, ...]
    function: str = ""
    path: str = ""

    def __str__(self) -> str:
        return ".".join(self.chain).replace(".[", "[")

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(part for part in self.chain if not part.startswith("["))


def user_frames() -> Iterator[FrameType]:
    """The frames of the user's code that are running, in all threads, the innermost first."""
    current: FrameType | None = None
    running = sys._current_frames()
    try:
        while running:
            _, current = running.popitem()
            while current is not None:
                if is_user_file(current.f_code.co_filename):
                    yield current
                current = current.f_back
    finally:
        # One of them is this generator's own: from Python 3.12 on it would keep itself, and what its callers hold.
        current = None
        running.clear()


def is_own(item: object) -> bool:
    """Whether this is a frame, a generator or a function of memlint, which refers to what it looks at."""
    if isinstance(item, FrameType):
        scope = item.f_globals
    elif isinstance(item, GeneratorType):
        scope = item.gi_frame.f_globals if item.gi_frame is not None else {}
    elif isinstance(item, FunctionType):
        scope = item.__globals__
    else:
        return False
    return str(scope.get("__name__", "")).startswith("memlint.")


def referrers(items: Sequence[object]) -> list[object]:
    """What refers to any of the items, less memlint's own frames: one that had itself in a variable would live on."""
    return [referrer for referrer in gc.get_referrers(*items) if referrer is not items and not is_own(referrer)]


def variables(frame: FrameType) -> dict[str, Any]:
    """The frame's local variables. Leaves no copy in the frame: it would keep tensors alive."""
    values = frame.f_locals
    found = dict(values)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & _OPTIMIZED:
        values.clear()
    return found


class Namer:
    """Answers from the frames that are running and the sources of the user's files."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = [Source(path, text) for path, text in sources.items()]

    def variable(self, value: object) -> str:
        """What the code calls a value; empty if it does not."""
        return next((str(name) for name in _names(value) if name.chain), "")

    def container(self, container: object, near: Place | None) -> tuple[str, list[Place]]:
        """What the code calls a container, and the lines that put something into it: which of them did is not seen.

        First that which is nearest to where the contents are made.
        """
        cached = _cached_function(container)
        if cached is not None:
            code = cached.__code__
            return cached.__qualname__, [Place(code.co_filename, code.co_firstlineno, code.co_name)]
        first = ""
        for name in _names(container):
            places = self._filled_at(name, near)
            if places:
                return str(name), places
            first = first or str(name)
        return first, self._comprehensions() if not first else []

    def _comprehensions(self) -> list[Place]:
        """The running comprehension: what it builds is nowhere yet."""
        sources = {source.path: source for source in self._sources}
        for frame in user_frames():
            source = sources.get(frame.f_code.co_filename)
            for first, last in source.comprehensions if source is not None else ():
                if first <= frame.f_lineno <= last:
                    return [Place(frame.f_code.co_filename, first, frame.f_code.co_name)]
        return []

    def attribute(self, name: str, function: str, near: Place | None) -> Place | None:
        """The line of a function that sets an attribute of this name."""
        found = [
            m for source in self._sources for m in source.attributes if m.chain[-1] == name and m.function == function
        ]
        return next(iter(_nearest((m.place for m in found), near)), None)

    def _filled_at(self, name: Name, near: Place | None) -> list[Place]:
        if name.chain and name.chain[-1].startswith("_") and name.chain[-1].endswith("_hooks"):
            return _nearest((place for source in self._sources for place in source.hooks), near)
        filling = [m for source in self._sources for m in source.mutations if _same(m, name)]
        handing = [m for source in self._sources for m in source.passes if _same(m, name)]
        return _nearest((m.place for m in filling or handing), near)


def _same(mutation: Mutation, name: Name) -> bool:
    """Whether a statement's container may be the named one."""
    attributes = name.attributes
    if len(attributes) > 1:
        return len(mutation.chain) > 1 and mutation.chain[-1] in {attributes[-1], "*"}
    if mutation.chain[-1:] != attributes:
        return False
    if name.function:
        return len(mutation.chain) == 1 and (mutation.place.path, mutation.function) == (name.path, name.function)
    return mutation.place.path == name.path or len(mutation.chain) > 1


def _nearest(places: Iterable[Place], near: Place | None) -> list[Place]:
    """Each line once, the nearest first."""

    def distance(place: Place) -> tuple[bool, bool, int]:
        if near is None:
            return (False, False, place.line)
        return (
            place.path != near.path,
            place.function != near.function.rpartition(".")[2],
            abs(place.line - near.line),
        )

    lines = {(place.path, place.line): place for place in places}
    return sorted(lines.values(), key=distance)


def _names(value: object) -> Iterator[Name]:
    """What the code calls a value, the shortest first: over attributes, items, closures and globals."""
    frames = list(user_frames())
    level: list[tuple[object, tuple[str, ...]]] = [(value, ())]
    own = [frames, level]
    seen = {id(value), *map(id, own)}
    last_resort: list[Name] = []
    for _ in range(_DEPTH):
        owners: list[tuple[object, tuple[str, ...]]] = []
        seen.add(id(owners))
        for item, rest in level:
            yield from _locals(item, rest, frames)
            for referrer in referrers([item]):
                if id(referrer) in seen or isinstance(referrer, FrameType):
                    continue
                seen.add(id(referrer))
                yield from _variables_that_hold(referrer, item, rest)
                owners.extend(_owners(referrer, item, rest))
        level = owners
        last_resort.extend(Name((_kind(owner), *rest)) for owner, rest in level if rest and rest[0][0] != "[")
    yield from last_resort
    frames.clear()


def _kind(owner: object) -> str:
    """What an object is called that nothing names. A tensor's own class may be the backend's."""
    if isinstance(owner, torch.nn.Parameter):
        return "Parameter"
    return "Tensor" if isinstance(owner, torch.Tensor) else type(owner).__name__


def _cached_function(container: object) -> FunctionType | None:
    """The function whose `functools.lru_cache` this is, or whose cache's dict."""
    for item in (container, *referrers([container])):
        if hasattr(item, "cache_info"):
            wrapped = getattr(item, "__wrapped__", None)
            return wrapped if isinstance(wrapped, FunctionType) else None
    return None


def _locals(item: object, rest: tuple[str, ...], frames: list[FrameType]) -> Iterator[Name]:
    for frame in frames:
        code = frame.f_code
        function = "" if code.co_name == "<module>" else code.co_name
        for name, known in variables(frame).items():
            if known is item:
                yield Name((name, *rest), function, code.co_filename)


def _variables_that_hold(referrer: object, item: object, rest: tuple[str, ...]) -> Iterator[Name]:
    """Globals, closures, arguments' defaults, class attributes and the variables of generators."""
    if isinstance(referrer, dict) and "__name__" in referrer and "__builtins__" in referrer:
        path = str(referrer.get("__file__") or "")
        yield from (Name((str(key), *rest), "", path) for key, known in list(referrer.items()) if known is item)
    elif isinstance(referrer, CellType):
        for function in gc.get_referrers(referrer):
            for user in gc.get_referrers(function) if isinstance(function, tuple) else ():
                if isinstance(user, FunctionType) and user.__closure__ is function and not is_own(user):
                    place = [cell is referrer for cell in gc.get_referents(function)].index(True)
                    name = user.__code__.co_freevars[place]
                    yield Name((name, *rest), user.__code__.co_name, user.__code__.co_filename)
    elif isinstance(referrer, GeneratorType):
        frame = referrer.gi_frame
        if frame is not None:
            yield from _locals(item, rest, [frame])
    elif isinstance(referrer, tuple):
        for user in gc.get_referrers(referrer):
            if isinstance(user, FunctionType) and user.__defaults__ is referrer:
                names = user.__code__.co_varnames[: user.__code__.co_argcount][-len(referrer) :]
                name = names[[value is item for value in referrer].index(True)]
                yield Name((name, *rest), user.__code__.co_name, user.__code__.co_filename)


def _owners(referrer: object, item: object, rest: tuple[str, ...]) -> Iterator[tuple[object, tuple[str, ...]]]:
    """The object that holds the item, and how it calls it."""
    if isinstance(referrer, dict):
        key = next((key for key, known in list(referrer.items()) if known is item), None)
        if key is None:
            return
        owners = [owner for owner in gc.get_referrers(referrer) if getattr(owner, "__dict__", None) is referrer]
        classes = [
            owner for owner in gc.get_referrers(referrer) if isinstance(owner, type) and vars(owner).get(key) is item
        ]
        for owner in [*owners, *classes]:  # a module's own dicts have no name of their own
            own = isinstance(owner, torch.nn.Module) and key in _REGISTERED
            yield owner, rest if own else (str(key), *rest)
        if not owners and not classes:
            yield referrer, (f"[{key!r}]" if isinstance(key, (str, int, bytes)) else "[...]", *rest)
    elif isinstance(referrer, _SEQUENCES):
        yield referrer, ("[...]", *rest)
    elif hasattr(referrer, "__dict__") and not isinstance(referrer, (type, FunctionType)):
        for key, known in list(vars(referrer).items()):
            if known is item:
                yield referrer, (str(key), *rest)
