"""What code does to values: hands them on, puts them away, adds them up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import libcst as cst

from memlint.semantics.events import Circumstances, Loop, Store, Use
from memlint.semantics.knowledge import torch as known
from memlint.semantics.making import Making
from memlint.semantics.scopes import nodes_within, path_of
from memlint.semantics.values import NOTHING, Grad, Kind, Mode, Value


class Effects(Making):
    """The part of a flow that records what becomes of values."""

    quiet: int
    loop: Loop | None
    statement: cst.CSTNode
    just_read: dict[int, Value]
    guards: int
    handlers: int
    tries: int
    order: int
    branches: tuple[tuple[int, int], ...]
    stores: list[Store]
    stores_in_given: list[Store]

    @abstractmethod
    def eval(self, node: cst.CSTNode) -> Value:
        """The value of an expression, with whatever reading it does."""

    def use(self, value: Value, how: str, detail: str, node: cst.CSTNode) -> None:
        if self.quiet or not value.idents:
            return
        self.order += 1
        use = Use(how, detail, node, self.order)
        for ident in value.idents:
            self.analysis.uses.setdefault(ident, []).append(use)

    def hand_over(self, value: Value, *, in_known_mode: bool = False) -> None:
        """A function of this file used as a value: somebody unseen may call it, in whatever grad mode."""
        if value.kind is Kind.CALLABLE:
            own = [qual for qual in value.quals if qual.startswith(":")]
            self.analysis.handed_over.update(own)
            if not in_known_mode:
                self.analysis.run_in_any_mode.update(own)

    def escape(self, value: Value) -> None:
        """The value goes to code out of view, which may keep or differentiate it."""
        self.analysis.escaped |= self.all_roots(value)
        for box in value.boxes:
            self.analysis.boxes[box].escaped = True

    def clear(self, value: Value) -> None:
        """The container is emptied here: what is put into it in the loops around is not kept for ever."""
        loop = self.loop
        while loop is not None:
            for box in value.boxes:
                self.analysis.boxes[box].emptied_in.add(loop.node)
            loop = loop.parent

    def store(
        self,
        how: str,
        node: cst.CSTNode,
        target: cst.BaseExpression,
        container: Value,
        value: Value,
        value_node: cst.BaseExpression,
    ) -> None:
        """A value is put into a container."""
        only = _only_item(value_node) if how == "extend" else None
        if only is not None:  # `losses += [loss]`, `losses.extend([loss])`
            how, value, value_node = "append", self.reread(only), only
        root = self.mark(node)
        marked = Value(
            value.kind,
            value.grad,
            conditions=value.conditions,
            roots=self.all_roots(value) | {root},
            elements=value.elements,
            boxes=value.boxes - container.boxes,
            cls=value.cls if value.kind is Kind.INSTANCE else None,
            weak=value.weak,
        )
        for box in container.boxes:
            self.analysis.put(box, marked)
        self.use(value, "store", how, node)
        is_known = bool(container.boxes) or container.kind is Kind.CONTAINER
        if not is_known and how != "setitem":
            self.escape(value)  # no container that is known: its `append` may do anything
        if self.quiet or not (is_known or self._is_given(container)):
            return
        path = path_of(target.value if isinstance(target, cst.Subscript) else target)
        boxes = [self.analysis.boxes[box] for box in container.boxes]
        carried = tuple(
            loop
            for loop in (self.loop.outer() if self.loop is not None else ())
            # Nested containers are taken for one: what is put into the inner one is in the outer one too.
            if (not boxes or any(loop.node not in box.born_in for box in boxes))
            and not self._is_same_in_each(value, loop)
        )
        if how == "overwrite" or _is_empty(value_node):
            return
        (self.stores if is_known else self.stores_in_given).append(
            Store(
                **self.here(node),
                how=how,
                target=target,
                path=path,
                value=self._graph_in(self.on_this_path(value), value_node),
                value_node=value_node,
                carriers=tuple(self.carriers(value_node)),
                root=root,
                carried_by=carried,
                backed=self.state.backed,
                in_object=not boxes or any(box.in_object for box in boxes),
                boxes=container.boxes,
            )
        )

    def _is_given(self, value: Value) -> bool:
        """Whether the value is nothing but what a parameter was given."""
        nodes = [self.analysis.roots[ident].node for ident in value.idents]
        return bool(nodes) and all(isinstance(node, cst.Param) for node in nodes)

    def _is_same_in_each(self, value: Value, loop: Loop) -> bool:
        """`record = {}` before the loop, `records.append(record)` in it: each time the same container."""
        if not value.boxes or value.elements is not None:
            return False
        made = [self.analysis.boxes[box] for box in value.boxes]
        here = nodes_within(self.scope.node)
        return all(id(box.node) in here and loop.node not in box.born_in for box in made)

    def on_this_path(self, value: Value) -> Value:
        """What a statement that every path reaches puts away carries a graph whenever the path that made one did."""
        return value if self.guards or self.state.guarded else value.when_carrying()

    def reread(self, node: cst.BaseExpression) -> Value:
        """The value of an expression just read, without recording anything again."""
        known = self.just_read.get(id(node))
        if known is not None:
            return known
        self.quiet += 1
        value = self.eval(node)
        self.quiet -= 1
        return value

    def carriers(self, node: cst.BaseExpression) -> Iterator[tuple[cst.BaseExpression, Value]]:
        """The innermost parts of an expression that carry a graph: `loss` of `loss * n`, `net(x)` of `net(x).cpu()`."""
        if isinstance(node, (cst.Dict, cst.List, cst.Tuple)):
            for element in node.elements:
                yield from self.carriers(element.value)
            return
        value = self.reread(node)
        if value.grad is not Grad.YES:
            return
        if isinstance(node, cst.Call) and value.idents and value.idents <= self.analysis.records:
            for argument in node.args:
                yield from self.carriers(argument.value)
            return
        for part in _operands(node):
            if self.reread(part).grad is Grad.YES and all(
                self.reread(other).grad is Grad.NO for other in _operands(node) if other is not part
            ):
                yield from self.carriers(part)
                return
        yield node, value

    def _graph_in(self, value: Value, node: cst.BaseExpression) -> Value:
        """The value itself, or, of a container, what in it carries a graph."""
        if value.grad is Grad.YES:
            return value
        for _, part in self.carriers(node):
            return part
        for element in value.elements or ():
            if element.grad is Grad.YES:
                return element
        for box in (self.analysis.boxes[index] for index in value.boxes):
            if box.content.grad is Grad.YES:
                return box.content
            items = box.items.values() if box.items is not None and not box.escaped else ()
            for item in items:  # of `{"loss": loss, "step": step}` the loss
                if item.grad is Grad.YES:
                    return item
        return value

    def _is_carried(self, path: str | None, value: Value) -> bool:
        """Whether an earlier iteration has left the value in the variable."""
        loops = self.loop.outer() if self.loop is not None else ()
        return path is None or any(self._as_left(loop, path) & value.roots for loop in loops)

    def _as_left(self, loop: Loop, path: str) -> set[int]:
        """The marker of what the earlier iterations left in a variable."""
        return loop.carried & {self.analysis.carried_marker(loop.node, path)}

    def accumulate(
        self,
        node: cst.CSTNode,
        target: cst.BaseExpression,
        path: str | None,
        before: Value,
        value: Value,
        value_node: cst.BaseExpression,
        result: Value,
    ) -> Value:
        """`total += value`: mark what the target holds from now on, record where it is carried."""
        if before.kind is Kind.INSTANCE:
            self.escape(value)  # an object with an `__iadd__` of its own
            return before
        root = self.mark(node)
        marked = Value(
            result.kind,
            result.grad,
            conditions=result.conditions,
            roots=result.roots | {root},
            weak=result.weak,
            proves=result.proves,
            partly=result.partly,
        )
        base = before
        if isinstance(target, cst.Subscript):
            base = self.eval(target.value)
            for box in base.boxes:
                self.analysis.put(box, marked)
            carried_boxes = [self.analysis.boxes[box] for box in base.boxes]
        else:
            carried_boxes = []
        loops = self.loop.outer() if self.loop is not None else ()
        if path is not None:
            for loop in loops:
                loop.sums.add(path)
        if self.quiet:
            return marked
        if path is not None:
            # Set anew since the iteration began, it holds nothing of the one before.
            carried = tuple(loop for loop in loops if self._as_left(loop, path) & before.roots)
        else:
            carried = tuple(loop for loop in loops if not any(loop.node in box.born_in for box in carried_boxes))
        local = isinstance(target, cst.Name) and target.value not in self.scope.nonlocal_names
        adds_tensors = isinstance(node, cst.Assign) and value.is_tensor  # no `__iadd__` of an object from elsewhere
        is_plain = adds_tensors or _adds_plainly(before, value, result)
        is_given = isinstance(target, cst.Subscript) and self._is_given(base)
        if self.state.mode is Mode.OFF or not (is_plain or is_given):
            return marked
        (self.stores if is_plain else self.stores_in_given).append(
            Store(
                **self.here(node),
                how="accumulate",
                target=target,
                path=path,
                value=self.on_this_path(value),
                value_node=value_node,
                carriers=tuple(self.carriers(value_node)),
                root=root,
                carried_by=carried,
                backed=self.state.backed,
                in_object=not local and (not carried_boxes or any(box.in_object for box in carried_boxes)),
                boxes=NOTHING,
            )
        )
        return marked

    def written_into(
        self,
        node: cst.CSTNode,
        target: cst.BaseExpression,
        path: str,
        before: Value,
        value: Value,
        value_node: cst.BaseExpression,
        result: Value,
    ) -> Value:
        """`total.add_(value)`, `losses[i] = value`: the tensor takes up the value's graph, in place."""
        marked = self.accumulate(node, target, path, before, value, value_node, result)
        if isinstance(target, cst.Name):  # it denotes the same object as before
            marked = Value(
                marked.kind,
                marked.grad,
                conditions=marked.conditions,
                roots=marked.roots,
                idents=before.idents | result.idents,
                weak=marked.weak,
            )
        self.state.bind(path, marked)
        return marked

    def here(self, node: cst.CSTNode) -> Circumstances:
        """Where and in which circumstances the node is read now."""
        self.order += 1
        return {
            "node": node,
            "statement": self.statement,
            "scope": self.scope,
            "loop": self.loop,
            "mode": self.state.mode,
            "guarded": self.guards > 0 or self.state.guarded,
            "handler": self.handlers > 0,
            "in_try": self.tries > 0,
            "order": self.order,
            "branches": self.branches,
        }


def _adds_plainly(before: Value, value: Value, result: Value) -> bool:
    """Whether `+=` on the target is a sum: of an object from elsewhere it may be anything.

    `total = loss` in the first iteration makes the total what is added to it later.
    """
    if before.kind is Kind.UNKNOWN and before.idents and before.idents <= value.roots | result.idents:
        return True
    if before.kind in (Kind.NUMBER, Kind.TENSOR, Kind.NONE):
        return True
    return before.kind is Kind.UNKNOWN and not before.idents


def _is_empty(node: cst.BaseExpression) -> bool:
    """`totals[key] = []`: what is put into it later is told there."""
    if isinstance(node, (cst.List, cst.Dict)):
        return not node.elements
    return isinstance(node, cst.Call) and not node.args and path_of(node.func) in ("list", "dict", "set")


def _operands(node: cst.BaseExpression) -> list[cst.BaseExpression]:
    """The parts of a differentiable expression whose graph it passes on."""
    if isinstance(node, cst.BinaryOperation):
        return [node.left, node.right]
    if isinstance(node, cst.UnaryOperation):
        return [node.expression]
    if not isinstance(node, cst.Call) or not isinstance(node.func, cst.Attribute):
        return []
    if node.func.attr.value not in known.DIFFERENTIABLE_METHODS:
        return []
    return [node.func.value, *(argument.value for argument in node.args)]


def _only_item(node: cst.BaseExpression) -> cst.BaseExpression | None:
    """`loss` of `[loss]` and `(loss,)`."""
    if not isinstance(node, (cst.List, cst.Tuple)) or len(node.elements) != 1:
        return None
    item = node.elements[0]
    return item.value if isinstance(item, cst.Element) else None
