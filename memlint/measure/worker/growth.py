"""Who keeps the memory of earlier steps: found by looking at what is alive, once the run has been seen to grow.

* A **graph**: an autograd node of one step refers to one of the step before, that to one before it, and so on. The
  line of such a node accumulates.
* A **container**: the lowest Python object from which tensors of several steps can be reached, found by going from the
  tensors upwards over the objects that refer to them.
* A **cycle**: objects that keep each other alive, one set a step. Only Python's cycle collector frees them, if it can.
"""

from __future__ import annotations

import gc
import sys
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import FunctionType, ModuleType
from typing import Any

import torch

from memlint.measure.recording import Category, Keeper, Place
from memlint.measure.worker import compat
from memlint.measure.worker.lines import LiveNode, NodeTags, tagged
from memlint.measure.worker.names import Namer, is_own, referrers, user_frames
from memlint.measure.worker.steps import Mark, Span
from memlint.measure.worker.tracker import Tracker, parts

LEAST_STEPS = 3
"""What keeps tensors of fewer steps than this does not accumulate: a loop variable keeps the last one's."""
_DEPTH = 10
"""How many objects may lie between a tensor and the container."""
_SAMPLES = 180
"""Tensors from which the search for containers begins ..."""
_ALIKE = 3
"""... and so many of each line, shape and step."""
_LINKS = 1000
"""How far the links of a chain are followed to its end."""
_OUR_REFERENCES = 3
"""To a tensor that only C++ keeps, such as a saved one: the list of all objects, the loop variable, the argument."""
_NODES = 200_000
"""Autograd nodes that are looked at for what they have saved."""
_CONTAINERS = (list, dict, set, frozenset, deque)
"""What holds many by itself, and is not a link of a chain."""
_LASTING = frozenset({Category.PARAMETERS, Category.GRADIENTS, Category.OPTIMIZER_STATE})


class Growth:
    """Looks for keepers. Changes nothing, and keeps nothing alive."""

    def __init__(self, tracker: Tracker, tags: NodeTags, sources: Callable[[], Mapping[str, str]]) -> None:
        self._found: dict[str, list[Keeper]] = {}
        """What the last look at steps of a kind has found."""
        self.created_graphs: Place | None = None
        """The last `backward(create_graph=True)`."""
        self.tensor_hooks: dict[Any, Place | None] = {}
        """Code of a hook on a tensor -> the line that registered it."""
        self._tracker = tracker
        self._tags = tags
        self._sources = sources

    @property
    def keepers(self) -> list[Keeper]:
        return [keeper for keepers in self._found.values() for keeper in keepers]

    def look(self, spans: Sequence[Span], warmup: int, steps: int, last: bool) -> None:
        """At the end of a step. `steps`: so many of a kind are wanted. `last`: nothing will run after it, so the cycle
        collector may run now."""
        kind = spans[-1].kind
        ends = [span.end for span in spans if span.kind == kind][warmup:]
        # A look takes a while: one in case that the program ends early, and the last.
        if len(ends) < LEAST_STEPS or not (last or len(ends) in {LEAST_STEPS, steps - warmup}):
            return
        self._found[kind] = []
        if not _grows(ends):
            return
        with compat.without_torch_function():
            self._found[kind] = _Look(self, spans, warmup).find(last)


class _Look:
    """One look, with what was there to see. Not kept: it refers to the tensors it has found."""

    def __init__(self, growth: Growth, spans: Sequence[Span], warmup: int) -> None:
        self._growth = growth
        self._tracker = growth._tracker
        self._now = len(spans)
        self._ends = [span.end.time for span in spans]
        self._old: dict[int, int] = {}
        """Storage -> the step that made it, of what earlier steps have left."""
        first = spans[0].start.time
        for record in self._tracker.live_records():
            step = bisect_right(self._ends, record.born)
            if first <= record.born and step < self._now - 1 and not (record.category in _LASTING and step < warmup):
                self._old[record.id] = step
        self._namer = Namer(growth._sources())
        self._near: dict[int, Place | None] = {}
        self._aged = self._aged_tensors()

    def find(self, last: bool) -> list[Keeper]:
        keepers = [*self._containers(), *self._graphs(), *self._larger_tensors()]
        taken = {storage for keeper in keepers for storage in keeper.storages}
        if last:
            keepers.extend(self._cycles(taken))
        self._aged.clear()
        return keepers

    def _aged_tensors(self) -> list[tuple[torch.Tensor, int]]:
        """The tensors that Python sees of earlier steps, by their memory or by their graph, and the step."""
        found = []
        for item in gc.get_objects():
            if not issubclass(type(item), torch.Tensor) or sys.getrefcount(item) <= _OUR_REFERENCES:
                continue
            step = self._step(item)
            if step is not None:
                found.append((item, step))
        return sorted(found, key=lambda pair: pair[1])

    def _step(self, tensor: torch.Tensor) -> int | None:
        node = compat.grad_fn(tensor)
        known = tagged(node) if node is not None else None
        if known is not None:
            return known.step if known.step < self._now - 1 else None
        record = self._tracker.record_of(tensor)
        return self._old.get(record.id) if record is not None else None

    def _place(self, tensor: torch.Tensor) -> Place | None:
        """The line that made a tensor."""
        node = compat.grad_fn(tensor)
        known = tagged(node) if node is not None else None
        if known is not None:
            return known.place
        record = self._tracker.record_of(tensor)
        return record.place if record is not None else None

    def _containers(self) -> Iterator[Keeper]:
        """Less those that hold only what another one holds, too: a sample that was drawn from a buffer."""
        found = [self._container(container) for container in _merging(self._samples(), self._aged)]
        seen: set[int] = set()
        for keeper in sorted(found, key=lambda keeper: -len(keeper.storages)):
            if not seen.issuperset(keeper.storages) or not keeper.storages:
                seen.update(keeper.storages)
                yield keeper

    def _container(self, container: object) -> Keeper:
        below = [tensor for tensor in _below(container) if self._step(tensor) is not None]
        near = self._place(below[0]) if below else None
        name, places = self._namer.container(container, near)
        holds_graph = any(compat.grad_fn(tensor) is not None for tensor in below)
        place = places[0] if places else None
        keeper = Keeper(place, "container", name, self._storages(below), holds_graph, tuple(places[1:]))
        below.clear()
        return keeper

    def _samples(self) -> list[tuple[torch.Tensor, int]]:
        """A few tensors for each line, shape and step: one line may fill several containers."""
        chosen: dict[tuple[Place | None, torch.Size, int], list[torch.Tensor]] = defaultdict(list)
        for tensor, step in self._aged:
            alike = chosen[self._place(tensor), tensor.shape, step]
            if len(alike) < _ALIKE:
                alike.append(tensor)
        found = [(tensor, step) for (*_, step), alike in chosen.items() for tensor in alike][-_SAMPLES:]
        chosen.clear()
        return found

    def _larger_tensors(self) -> Iterator[Keeper]:
        """What a line has made anew at several steps, each time of what it had made before."""
        for record in self._tracker.live_records():
            if record.grown_from is None:
                continue
            steps = {bisect_right(self._ends, earlier.born) for earlier in self._tracker.grown_over(record)}
            if len(steps) >= LEAST_STEPS:
                tensors = (tensor for tensor in _tensors_alive() if self._tracker.record_of(tensor) is record)
                name = next(filter(None, map(self._namer.variable, tensors)), "")
                yield Keeper(record.place, "tensor", name, (record.id,))

    def _graphs(self) -> Iterator[Keeper]:
        """The lines whose nodes refer to nodes of the step before, over several steps."""
        steps: dict[Place | None, set[int]] = defaultdict(set)
        deepest: dict[Place | None, int] = defaultdict(int)
        for node in list(self._growth._tags.live.values()):
            if node.crosses:
                steps[node.place].add(node.step)
                deepest[node.place] = max(deepest[node.place], node.crossings)
        for place, seen in steps.items():
            if len(seen) < LEAST_STEPS or deepest[place] < LEAST_STEPS:
                continue
            carriers = [t for t in _tensors_alive() if (n := _node(t)) is not None and n.place == place]
            most = max(map(_crossings, carriers), default=0)
            carriers = [tensor for tensor in carriers if _crossings(tensor) == most >= LEAST_STEPS]
            name = next(filter(None, map(self._namer.variable, carriers)), "")
            yield Keeper(place, "graph", name, self._storages(carriers), holds_graph=True)
            carriers.clear()

    def _cycles(self, taken: set[int]) -> Iterator[Keeper]:
        """What is left: ctx attributes and hooks that refer to their own tensors, and what only the collector frees."""
        sites: dict[tuple[str, Place | None], set[int]] = defaultdict(set)
        for tensor, step in self._samples():
            record = self._tracker.record_of(tensor)
            if record is None or record.id in taken:
                continue
            site = self._self_reference(tensor)
            if site is not None:
                sites[site].add(step)
        left = set(self._old) - taken
        self._aged.clear()
        gc.collect()
        alive = {record.id for record in self._tracker.live_records()}
        freed = left - alive
        if sites:
            # Which storages belong to which of them is out of sight: with one such line, all that is left.
            names = [(name, place) for (name, place), steps in sites.items() if len(steps) >= LEAST_STEPS]
            for number, (name, place) in enumerate(names):
                yield Keeper(place, "cycle", name, tuple(sorted(left)) if number == 0 else (), holds_graph=True)
            if names:
                return
        if self._growth.created_graphs is not None and left:
            name = "gradients with a graph"
            yield Keeper(self._growth.created_graphs, "cycle", name, tuple(sorted(left)), holds_graph=True)
        elif freed:
            yield Keeper(None, "cycle", "a reference cycle", tuple(sorted(freed)))

    def _self_reference(self, tensor: torch.Tensor) -> tuple[str, Place | None] | None:
        for item in _above(tensor, 4):
            if isinstance(item, FunctionType) and item.__code__ in self._growth.tensor_hooks:
                return f"{item.__code__.co_name}, a hook", self._growth.tensor_hooks[item.__code__]
            if isinstance(item, torch.autograd.function.BackwardCFunction):
                name = next((name for name, value in vars(item).items() if value is tensor), None)
                if name is not None:
                    return f"ctx.{name}", self._namer.attribute(name, "forward", self._place(tensor))
        return None

    def _storages(self, tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
        """What the tensors and their graphs keep, of earlier steps."""
        found: set[int] = set()
        nodes = []
        for tensor in tensors:
            self._add(tensor, found)
            if (node := compat.grad_fn(tensor)) is not None:
                nodes.append(node)
        seen: set[Any] = set()
        while nodes and len(seen) < _NODES:
            node = nodes.pop()
            if node in seen:
                continue
            seen.add(node)
            for saved in compat.saved_tensors(node):
                self._add(saved, found)
            nodes.extend(child for child, _ in node.next_functions if child is not None)
        return tuple(sorted(found))

    def _add(self, tensor: torch.Tensor, found: set[int]) -> None:
        for part in parts(tensor):
            record = self._tracker.record_of(part)
            if record is not None and record.id in self._old:
                found.add(record.id)


def _grows(ends: Sequence[Mark]) -> bool:
    pairs = list(pairwise(ends))
    return all(a.allocated < b.allocated for a, b in pairs) or all(a.graph_nodes < b.graph_nodes for a, b in pairs)


def _tensors_alive() -> list[torch.Tensor]:
    return [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]


def _node(tensor: torch.Tensor) -> LiveNode | None:
    node = compat.grad_fn(tensor)
    return tagged(node) if node is not None else None


def _crossings(tensor: torch.Tensor) -> int:
    node = _node(tensor)
    return node.crossings if node is not None else 0


def _merging(tensors: Sequence[tuple[torch.Tensor, int]], unseen: object) -> list[object]:
    """The lowest objects from which tensors of several steps can be reached; less one, which is not the user's."""
    running = set(map(id, user_frames()))
    objects: dict[int, object] = {id(tensor): tensor for tensor, _ in tensors}
    steps: dict[int, set[int]] = {id(tensor): {step} for tensor, step in tensors}
    frontier: list[object] = list(objects.values())
    own = {id(unseen), id(tensors), id(objects), id(steps), *map(id, tensors)}
    found: list[object] = []
    for _ in range(_DEPTH):
        own.update({id(frontier), id(found)})
        above: dict[int, object] = {}
        own.add(id(above))
        for referrer in _referrers(frontier):
            key = id(referrer)
            if key in own or key in objects or key in running or _is_root(referrer):
                continue
            reached = set().union(*(steps[id(r)] for r in _referents(referrer) if id(r) in steps))
            steps[key] = reached
            above[key] = referrer
        objects.update(above)
        frontier.clear()
        for key, item in above.items():
            if len(steps[key]) >= LEAST_STEPS:
                found.append(item)
            else:
                frontier.append(item)
        above.clear()
        if not frontier:
            break
    objects.clear()
    ends = {id(end): end for end in map(_end_of_chain, found)}
    return list(ends.values())


def _end_of_chain(item: object) -> object:
    """Of objects of one kind, each of which refers to the next (a linked list): the one that none refers to."""
    if isinstance(item, _CONTAINERS):
        return item
    seen = {id(item)}
    for _ in range(_LINKS):
        direct = [referrer for referrer in gc.get_referrers(item) if not _is_root(referrer)]
        over = [owner for fields in direct if isinstance(fields, dict) for owner in gc.get_referrers(fields)]
        links = [link for link in (*direct, *over) if type(link) is type(item) and id(link) not in seen]
        if not links:
            break
        item = links[0]
        seen.add(id(item))
    return item


def _referrers(items: list[object]) -> list[object]:
    """What refers to any of the items, over tuples that the collector does not track (`torch.return_types.max`)."""
    found = referrers(items)
    sought = set(map(id, items))
    for holder in gc.get_objects():
        if any(_is_untracked(held) and any(id(item) in sought for item in held) for held in gc.get_referents(holder)):
            found.append(holder)
    return found


def _referents(item: object) -> list[object]:
    """What an object refers to, also over such tuples."""
    direct = gc.get_referents(item)
    return direct + [inner for held in direct if _is_untracked(held) for inner in held]


def _is_untracked(item: object) -> bool:
    return isinstance(item, tuple) and not gc.is_tracked(item)


def _is_root(item: object) -> bool:
    """Not to be climbed over: a module, its globals, and memlint itself."""
    if isinstance(item, ModuleType):
        return True
    if isinstance(item, dict):
        return "__builtins__" in item
    return is_own(item)


def _below(container: object) -> list[torch.Tensor]:
    """The tensors that a container holds, over other objects that are held by nothing else of interest."""
    level, seen, found = [container], {id(container), *map(id, user_frames())}, []
    for _ in range(_DEPTH):
        under = []
        for item in level:
            for referent in gc.get_referents(item):
                if id(referent) in seen or isinstance(referent, (type, ModuleType)) or _is_root(referent):
                    continue
                seen.add(id(referent))
                if issubclass(type(referent), torch.Tensor):
                    found.append(referent)
                else:
                    under.append(referent)
        level = under
    return found


def _above(item: object, depth: int) -> Iterator[object]:
    """What refers to an object, level by level."""
    level, seen = [item], {id(item)}
    for _ in range(depth):
        above = [r for r in gc.get_referrers(*level) if id(r) not in seen and not _is_root(r) and r is not level]
        seen.update(map(id, above))
        yield from above
        level = above
