"""The flow through one function body: statements, branches, loops.

An abstract interpreter. Each statement is read in order with the state before it; branches are joined; a loop's body is
read twice, first to learn what an iteration leaves behind, then to record what happens. So is that of a loop in a loop:
its first reading is part of the outer one's. Expressions are read by `memlint.semantics.expressions`, which this class
extends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

import libcst as cst

from memlint.semantics.entry_modes import context_mode
from memlint.semantics.events import AttributeStore, Backward, Call, Loop, Store
from memlint.semantics.expressions import Expressions
from memlint.semantics.knowledge import torch as known
from memlint.semantics.layers import Roots, Variables, union
from memlint.semantics.library_objects import is_neutral_context
from memlint.semantics.reading import literal_key
from memlint.semantics.scopes import imported_names, path_of
from memlint.semantics.state import Effect, State, freed, merge
from memlint.semantics.sums import added_to, joined
from memlint.semantics.typed_assignments import TypedAssign
from memlint.semantics.values import NONE, NOTHING, PLAIN, Grad, Kind, Mode, Value, join

if TYPE_CHECKING:
    from memlint.semantics.analysis import Analysis
    from memlint.semantics.scopes import Scope


class Flow(Expressions):
    """What happens in one scope, once `run` has read it."""

    def __init__(self, analysis: Analysis, scope: Scope, entry: Mode, variables: dict[str, Value]) -> None:
        self.analysis = analysis
        self.scope = scope
        self.entry = entry
        # Where nobody knows what a framework does, it is asked like a caller's: a backward pass may show it.
        mode = Mode.ENTRY if entry is Mode.UNKNOWN else entry
        self.state = State(Variables({**variables}), mode, Roots(), Roots())
        self.quiet = 0
        self.tensors_written: list[AttributeStore] = []
        """What carries a graph and is written into an attribute's own memory: `self.mean[:] = value`."""
        self.loop: Loop | None = None
        self.statement: cst.CSTNode = scope.node
        self.just_read: dict[int, Value] = {}
        """The values of the expressions of the statement, by the identity of their nodes."""
        self.guards = 0
        self.handlers = 0
        self.tries = 0
        self.order = 0
        self.branches: tuple[tuple[int, int], ...] = ()
        self.captured = scope.captured()
        self.stacked_loop_exits: list[list[State]] = []
        self.stacked_breaks: list[list[State]] = []
        self.learned: dict[int, tuple[Effect, set[str]]] = {}
        """By the node of each loop in a loop: what one iteration does, and to which paths it adds something."""

        self.calls: list[Call] = []
        self.backwards: list[Backward] = []
        self.stores: list[Store] = []
        self.stores_in_given: list[Store] = []
        """What is put into a parameter of unknown kind: a list, if the caller gives one."""
        self.attribute_stores: list[AttributeStore] = []
        self.loops: list[Loop] = []
        self.ifs: dict[int, cst.If] = {}
        """The `if` statements, by the number that events name them by."""
        self.withs: list[tuple[cst.With, cst.WithItem, Value]] = []
        self.bare_names: list[tuple[cst.Expr, Value]] = []
        """Statements that are nothing but a name or a path."""
        self.returned: list[Value] = []
        self.return_roots: set[int] = set()
        self.falls_off = False
        """The end is reached without a `return`, on some path."""
        self.has_forward = False
        self.has_backward = False
        self.has_step = False
        self.read_as_data: dict[int, frozenset[int]] = {}
        """Each expression `x.data`, by its node, and the definitions that `x` may hold."""
        self.compared: set[int] = set()
        """Those that hold what is compared: `out > 0.5`."""
        self.differentiating: set[tuple[tuple[int, int], ...]] = set()
        """The branches in which something computed in the caller's grad mode is differentiated."""
        self.differentiating_in: dict[int, list[tuple[tuple[int, int], ...]]] = {}
        """Those of each `if`, by its number."""
        self.backed_at_end: frozenset[int] | None = None
        self._made_at_end = Roots()
        self.final = Variables({})
        """What the variables hold where the function ends, on whichever path."""

    # --- running ---

    def run(self, body: Sequence[cst.CSTNode]) -> None:
        self.block(body)
        self.falls_off = self.state.alive
        if self.state.alive:
            self._leave()
        if self.state.alive or not self.final:
            self.final = self.state.vars

    def run_expression(self, body: cst.BaseExpression) -> None:
        self._return(self.eval(body), body)

    def block(self, body: Sequence[cst.CSTNode]) -> None:
        for statement in body:
            if not self.state.alive:
                return
            self.execute(statement)

    def execute(self, statement: cst.CSTNode) -> None:
        if type(statement) in _LINES:
            for small in cast("cst.SimpleStatementLine", statement).body:
                if self.state.alive:
                    self.execute(small)
            return
        self.statement = statement
        self.just_read.clear()
        handler = _STATEMENTS.get(type(statement))
        if handler is not None:
            handler(self, statement)

    def suite(self, body: cst.BaseSuite) -> None:
        self.block(body.body)

    def _leave(self) -> None:
        """The end of the function is reached on this path."""
        state = self.state
        if self.backed_at_end is None:
            self.backed_at_end, self._made_at_end = state.backed, state.made.copy()
        else:
            self.backed_at_end = freed(self.backed_at_end, self._made_at_end, state.backed, state.made)
            self._made_at_end = union(state.made, self._made_at_end)
        final = state.vars.copy()
        for path, here, older in state.vars.differing(self.final):
            if older is not None:
                final[path] = older if here is None else join(older, here)
        self.final = final

    # --- simple statements ---

    def _expr(self, node: cst.Expr) -> None:
        value = self.eval(node.value)
        if isinstance(node.value, (cst.Name, cst.Attribute)) and not self.quiet:
            self.bare_names.append((node, value))

    def _assign(self, node: cst.Assign) -> None:
        value = self.eval(node.value)
        if isinstance(node, TypedAssign):
            annotated = self.annotated(node.annotation.annotation)
            value = self.with_kind(value, annotated) if annotated and value.kind is Kind.UNKNOWN else value
        if len(node.targets) > 1:
            for each in node.targets:
                self.assign(each.target, value, node.value)
            return
        pairs = _pairs(node)
        if len(pairs) == 1:
            self._assign_sum(node, node.targets[0].target, node.value, value)
            return
        # `total, count = total + loss, count + 1`
        values = [self.reread(source) for _, source in pairs]
        for (part, source), item in zip(pairs, values, strict=True):
            self._assign_sum(node, part, source, item)

    def _is_sum_in(self, item: cst.Subscript, added: cst.BaseExpression) -> bool:
        """`totals[key] = totals[key] + loss` of a container; a tensor is written into."""
        base = self.reread(item.value)
        return (bool(base.boxes) or base.kind is Kind.CONTAINER) and self.reread(added).when_carrying().carries_graph

    def _assign_sum(
        self, node: cst.Assign, target: cst.BaseExpression, source: cst.BaseExpression, value: Value
    ) -> None:
        """Bind a target; `total = total + loss` adds to it."""
        parts = added_to(target, source)
        carrying = (part for part in parts if self.reread(part).grad is not Grad.NO)
        expression = next(carrying, parts[0] if parts else None)
        if expression is None or (isinstance(target, cst.Subscript) and not self._is_sum_in(target, expression)):
            self.assign(target, value, source)
            return
        path = self.item_path(target) if isinstance(target, cst.Subscript) else path_of(target)
        before = self.state.vars.get(path or "")
        if before is None:  # `self.total`, set by another method; `nonlocal total`
            before = self.reread(target)
        added = self.reread(expression)
        is_longer = added.kind is Kind.CONTAINER or isinstance(source, cst.DictComp)
        if before.kind is Kind.CONTAINER and before.boxes and is_longer:
            self.store("extend", node, target, before, added, expression)  # `losses = losses + [loss]`
            self.assign(target, value, source)
            return
        held = self.accumulate(node, target, path, before, added, expression, value)
        if isinstance(target, cst.Subscript):
            if path is not None:
                self.state.bind(path, held)
            return
        # What was joined, or is no running total, is told by its definition later.
        is_own = joined(source) is not None or not self._is_carried(path, before)
        self.assign(target, value.with_roots(held.roots) if value.idents and is_own else held, source)

    def _ann_assign(self, node: cst.AnnAssign) -> None:
        """A variable that is declared, or a field of a class."""
        self.annotated(node.annotation.annotation)
        if node.value is not None:
            self.assign(node.target, self.eval(node.value), node.value)

    def assign(self, target: cst.BaseExpression, value: Value, source: cst.BaseExpression) -> None:
        if isinstance(target, cst.Name):
            self._bind_name(target.value, value, target)
        elif isinstance(target, (cst.Tuple, cst.List)):
            self._unpack(target, value, source)
        elif isinstance(target, cst.Attribute):
            self._store_attribute(target, value, source)
        elif isinstance(target, cst.Subscript):
            self._store_item(target, value, source)
        elif isinstance(target, cst.StarredElement):
            self.assign(target.value, value, source)

    def _bind_name(self, name: str, value: Value, node: cst.CSTNode) -> None:
        if name in self.captured or name in self.scope.nonlocal_names:
            self.use(value, "captured", name, node)
            if not self.scope.parent or name in self.scope.nonlocal_names:
                self.analysis.capture(self.all_roots(value))
            else:
                self.escape(value)
        self.state.bind(name, value)

    def _unpack(self, target: cst.Tuple | cst.List, value: Value, source: cst.BaseExpression) -> None:
        elements = [element.value for element in target.elements]
        known_elements = value.elements
        is_star = [isinstance(element, cst.StarredElement) for element in target.elements]
        for index, element in enumerate(elements):
            if known_elements is not None and len(known_elements) == len(elements) and True not in is_star:
                item = known_elements[index]
            elif value.boxes and True not in is_star[: index + 1]:
                item = self.content_of(value, str(index))
            else:
                item = self.output_named(value, element) or self.element_of(value, element)
            self.assign(element, item, source)

    def _store_attribute(self, target: cst.Attribute, value: Value, source: cst.BaseExpression) -> None:
        owner = self.eval(target.value)
        self.use(owner, "written", target.attr.value, target)
        self.use(value, "store", target.attr.value, target)
        self.hand_over(value)
        path = path_of(target)
        if not self.quiet:
            self.attribute_stores.append(
                AttributeStore(
                    **self.here(target), owner=owner, name=target.attr.value, path=path, value=value, source=source
                )
            )
        self.analysis.shared |= self.all_roots(value)
        if path is not None:
            self._cut_part(target.value, owner, "." + target.attr.value, value)
            self.state.bind(path, value)
        for box in value.boxes:
            self.analysis.boxes[box].in_object = True

    def _cut_part(self, whole: cst.BaseExpression, owner: Value, part: str, value: Value) -> None:
        """`out["loss"] = out["loss"].detach()`: the part that backward ran on goes, and with it what shows a graph."""
        path = path_of(whole)
        if path is None or path not in self.state.vars or value.grad is not Grad.NO or len(owner.idents) != 1:
            return
        cut = self.analysis.roots[next(iter(owner.idents))].members.get(part)
        if cut is not None and (cut in self.analysis.differentiated or cut in self.state.backed):
            self.state.bind(path, Value(owner.kind, Grad.MIXED, roots=owner.roots, cls=owner.cls))

    def _store_item(self, target: cst.Subscript, value: Value, source: cst.BaseExpression) -> None:
        base = self.eval(target.value)
        key = self.item_path(target)
        for element in target.slice:
            self.eval_slice(element.slice)
        self.use(base, "written", "[]", target)
        self.use(value, "store", "[]", target)
        written = path_of(target.value)
        put = value.when_carrying()
        if written is not None and "." in written and not base.boxes and put.grad is Grad.YES and not self.quiet:
            self.tensors_written.append(
                AttributeStore(**self.here(target), owner=base, name="[]", path=written, value=put, source=source)
            )
        path = path_of(target.value)
        if base.is_tensor and not base.boxes and path is not None and value.grad is not Grad.NO:
            result = self.derived(Kind.TENSOR, target, (base, value), self.root(target))
            self.written_into(target, target.value, path, base, value, source, result)
            return
        if key is not None:
            self._cut_part(target.value, base, "[" + key.rpartition("[")[2], value)
            self.state.bind(key, value)
        elif path is not None and path in self.state.vars and value.grad is Grad.NO and self.literal_items(base):
            # `for name in losses: losses[name] = losses[name].item()`
            self.state.bind(path, Value(base.kind, Grad.MIXED, roots=base.roots, cls=base.cls))
        if key is None or base.boxes:
            # d["loss"] = loss keeps one value; d[step] = loss keeps one a step.
            known = {box: self.analysis.boxes[box].items for box in base.boxes}
            self.store("setitem" if key is None else "overwrite", target, target.value, base, value, source)
            self.note_item(literal_key(target), known, value)

    def _aug_assign(self, node: cst.AugAssign) -> None:
        value = self.eval(node.value)
        target = node.target
        path = path_of(target) if not isinstance(target, cst.Subscript) else self.item_path(target)
        before = self.eval(target)
        self.use(before, "written", "augmented", node)
        self.use(value, "operand", "augmented", node)
        counts = isinstance(target, cst.Subscript) and any(self.analysis.boxes[box].counts for box in before.boxes)
        is_container = before.boxes or before.kind is Kind.CONTAINER or self._is_grown(before, node.value)
        is_longer = is_container and not counts and (value.boxes or value.kind is Kind.CONTAINER)
        if isinstance(node.operator, cst.AddAssign) and is_longer:
            self.store("extend", node, target, before, value, node.value)
            return
        kind = Kind.TENSOR if before.is_tensor or value.is_tensor else Kind.UNKNOWN
        result = self.derived(kind, node, (before, value)) if before.boxes else self.operation(before, value, node)
        if isinstance(node.operator, (cst.AddAssign, cst.SubtractAssign)):
            self.note_summands(result, (before, value))
            result = self.accumulate(node, target, path, before, value, node.value, result)
        if isinstance(target, cst.Name):
            self._bind_name(target.value, result, target)
        elif path is not None:
            self.state.bind(path, result)

    def _is_grown(self, before: Value, added: cst.BaseExpression) -> bool:
        """`self.losses += [loss]`: only lists take a list in."""
        return isinstance(added, cst.List) and before.kind is Kind.UNKNOWN

    def _return_statement(self, node: cst.Return) -> None:
        value = NONE if node.value is None else self.eval(node.value)
        self._return(value, node)
        self.state.alive = False

    def _return(self, value: Value, node: cst.CSTNode) -> None:
        self.use(value, "return", "", node)
        self.hand_over(value)
        if not self.quiet:
            self.returned.append(value)
            self.return_roots |= self.all_roots(value)
            for box in value.boxes:
                self.analysis.boxes[box].returned = True
            self._leave()

    def _raise(self, node: cst.Raise) -> None:
        if node.exc is not None:
            self.eval(node.exc)
        self.state.alive = False

    def _break(self, node: cst.CSTNode) -> None:
        if self.stacked_breaks:
            self.stacked_breaks[-1].append(self.state.copy())
        self.state.alive = False

    def _continue(self, node: cst.CSTNode) -> None:
        if self.stacked_loop_exits:
            self.stacked_loop_exits[-1].append(self.state.copy())
        self.state.alive = False

    def _del(self, node: cst.Del) -> None:
        targets = node.target.elements if isinstance(node.target, cst.Tuple) else [cst.Element(node.target)]
        for element in targets:
            target = element.value
            path = path_of(target)
            if path is not None:
                value = self.state.vars.pop(path)
                if value is not None:
                    self.use(value, "delete", path, node)
            elif isinstance(target, cst.Subscript):
                self.clear(self.eval(target.value))

    def _assert(self, node: cst.Assert) -> None:
        self.use(self.eval(node.test), "test", "", node)
        if node.msg is not None:
            self.eval(node.msg)

    def _import(self, node: cst.Import | cst.ImportFrom) -> None:
        for name, qualified in imported_names(node):
            self.state.bind(name, self.named(self.analysis.canonical(qualified)))

    def _function_def(self, node: cst.FunctionDef) -> None:
        for decorator in node.decorators:
            self.eval(decorator.decorator)
        scope = self.analysis.scope_of(node)
        self._bind_name(node.name.value, Value(Kind.CALLABLE, quals=frozenset({scope.qualname})), node)
        self._capture(scope)

    def _class_def(self, node: cst.ClassDef) -> None:
        for argument in (*node.bases, *node.keywords):
            self.eval(argument.value)
        scope = self.analysis.scope_of(node)
        self._bind_name(node.name.value, Value(Kind.CALLABLE, quals=frozenset({scope.qualname})), node)
        self._capture(scope)

    def _capture(self, scope: Scope) -> None:
        """Whatever a nested scope mentions may be read, or handed on, at any later time."""
        self.capture_names(scope.words_within, scope.node)

    # --- compound statements ---

    def _if(self, node: cst.If) -> None:
        ends: list[State] = []
        chain: cst.If | cst.Else | None = node
        guards = 0
        around, statement = self.branches, id(node)
        fresh, self.state.fresh = self.state.fresh, Roots()
        self.ifs[statement] = node
        loop = self.loop
        hidden = self.hide_items(node.test, loop.node.target, loop) if loop and isinstance(loop.node, cst.For) else None
        while isinstance(chain, cst.If):
            self.branches = (*around, (statement, len(ends)))
            truth = self.test(chain.test)
            if guards == 0:
                self.guards += 1
                guards = 1
            before = self.state
            self.state = before.copy()
            self._note_none(chain.test, self.state, before)
            if truth is not False or _is_switch(chain.test):
                self.suite(chain.body)
            if truth is False:
                self.state.alive = False
            ends.append(self.state)
            self.state = before
            if truth is True:
                self.state.alive = False
            chain = chain.orelse
        self.branches = (*around, (statement, len(ends)))
        if chain is not None and self.state.alive:
            self.suite(chain.body)
        self.branches = around
        self.guards -= guards
        end = self.state
        some_left = any(not state.alive for state in ends) or not end.alive
        for state in reversed(ends):
            end = merge(state, end)
        if some_left and end.alive:
            end.guarded = True
        end.fresh = union(fresh, end.fresh)
        self.state = end
        if loop is not None and hidden is not None and not some_left:
            self.show_items(hidden, loop)

    def _note_none(self, test: cst.BaseExpression, then: State, otherwise: State) -> None:
        """`if loss is not None:`, otherwise: what would be in the variable has not been made."""
        if not isinstance(test, cst.Comparison) or len(test.comparisons) != 1:
            return
        ((operator, other),) = ((target.operator, target.comparator) for target in test.comparisons)
        if not isinstance(other, cst.Name) or other.value != "None" or not isinstance(operator, (cst.Is, cst.IsNot)):
            return
        value = then.vars.get(path_of(test.left) or "")
        if value is not None:
            without = then if isinstance(operator, cst.Is) else otherwise
            without.made.remove(value.proves)

    def _for(self, node: cst.For) -> None:
        iterated = self.eval(node.iter)
        self.use(iterated, "iterate", "", node)
        self._loop(
            node,
            iterated,
            node,
            lambda loop: self.assign_element(node.target, iterated, loop, node.iter),
            node.body,
        )
        if node.orelse is not None:
            self.suite(node.orelse.body)

    def _while(self, node: cst.While) -> None:
        def enter(loop: Loop) -> None:
            self.test(node.test)

        self._loop(node, PLAIN, None, enter, node.body)
        if node.orelse is not None:
            self.suite(node.orelse.body)

    def _loop(
        self,
        node: cst.For | cst.While,
        iterated: Value,
        clause: cst.For | None,
        enter: Callable[[Loop], None],
        body: cst.BaseSuite,
    ) -> None:
        loop = self.new_loop(node, iterated, clause)
        guards, self.guards = self.guards, 0
        guarded, self.state.guarded = self.state.guarded, False
        before = self.state

        after_one = self._after_one(loop, before, enter, body)
        head = merge(before.copy(), after_one)
        if self.quiet:
            self.learned[id(node)] = Effect(after_one, head.joined), loop.sums
        self._mark_carried(loop, before, after_one, head)
        breaks: list[State] = []
        end = head
        if not self.quiet:
            end, breaks = self._iteration(loop, head.copy(), enter, body)
            loop.backed_at_end = end.backed if end.alive else None
        after, joined = before, []
        for state in (end, *breaks):
            if state.alive:
                after = merge(after, state)
                joined += after.joined
        _note_sums(joined, before, end, after)
        after.guarded = guarded
        self.state = after
        self.loop = loop.parent
        self.guards = guards

    def _after_one(self, loop: Loop, before: State, enter: Callable[[Loop], None], body: cst.BaseSuite) -> State:
        """The state that one iteration leaves behind; of a loop in a loop it is known from the outer one's first."""
        learned = self.learned.pop(id(loop.node), None)
        if learned is not None and not self.quiet:
            effect, loop.sums = learned
            return effect.applied_to(before)
        self.quiet += 1
        after_one, _ = self._iteration(loop, before.copy(), enter, body)
        self.quiet -= 1
        return after_one

    def _mark_carried(self, loop: Loop, before: State, after_one: State, head: State) -> None:
        """Mark what an iteration finds in a variable that the one before it has changed, and left with a graph."""
        for path in head.joined:
            value = head.vars[path]
            if value.grad is Grad.NO or value is before.vars.get(path):
                continue
            left = after_one.vars.get(path) if after_one.alive else None
            if left is not None and left.grad is Grad.NO and left.kind in (Kind.TENSOR, Kind.UNKNOWN):
                continue
            if path in before.vars or path in loop.sums:
                marker = self.analysis.carried_marker(loop.node, path)
                loop.carried.add(marker)
                head.vars[path] = value.with_roots(frozenset({marker}))

    def _iteration(
        self, loop: Loop, start: State, enter: Callable[[Loop], None], body: cst.BaseSuite
    ) -> tuple[State, list[State]]:
        """Read the body once; the state at its end (with every `continue`) and those at its breaks."""
        self.loop = loop
        loop.filters = 0
        self.state = start
        self.stacked_loop_exits.append([])
        self.stacked_breaks.append([])
        enter(loop)
        self.suite(body)
        end = self.state
        for state in self.stacked_loop_exits.pop():
            end = merge(end, state)
        return end, self.stacked_breaks.pop()

    def _with(self, node: cst.With) -> None:
        mode, region = self.state.mode, self.state.region
        for item in node.items:
            value = self.eval(item.item)
            if not self.quiet:
                self.withs.append((node, item, value))
            self.enter(value, item.item)
            if item.asname is not None:
                entered = value if value.kind is not Kind.CONTEXT else PLAIN
                self.assign(item.asname.name, entered, item.item)
        self.suite(node.body)
        self.state.mode, self.state.region = mode, region

    def _try(self, node: cst.Try | cst.TryStar) -> None:
        before = self.state.copy()
        self.tries += 1 if node.handlers else 0
        self.suite(node.body)
        self.tries -= 1 if node.handlers else 0
        normal = self.state
        raised = merge(before, normal.copy()) if normal.alive else before
        if node.orelse is not None and normal.alive:
            self.suite(node.orelse.body)
            normal = self.state
        ends = [normal]
        self.guards += 1
        self.handlers += 1
        for handler in node.handlers:
            self.state = raised.copy()
            self.state.backed = before.backed
            if handler.type is not None:
                self.eval(handler.type)
            if handler.name is not None:
                self.assign(handler.name.name, PLAIN, handler.name.name)
            self.suite(handler.body)
            ends.append(self.state)
        self.guards -= 1
        self.handlers -= 1
        end = ends[0]
        for state in ends[1:]:
            end = merge(end, state)
        # A `finally` also runs when every path has left.
        self.state = end
        if node.finalbody is not None:
            alive, self.state.alive = self.state.alive, True
            self.suite(node.finalbody.body)
            self.state.alive = self.state.alive and alive

    def _match(self, node: cst.Match) -> None:
        self.eval(node.subject)
        before = self.state
        ends = [before.copy()]
        self.guards += 1
        for case in node.cases:
            self.state = before.copy()
            for name in self.pattern_names(case.pattern):
                self.state.bind(name, self.unknown(case.pattern, NOTHING))
            if case.guard is not None:
                self.eval(case.guard)
            self.suite(case.body)
            ends.append(self.state)
        self.guards -= 1
        end = ends[0]
        for state in ends[1:]:
            end = merge(end, state)
        self.state = end

    @property
    def only_raises(self) -> bool:
        """`raise NotImplementedError`: what a subclass does instead is not in view."""
        return not self.returned and not self.falls_off and self.scope.is_function

    # --- context managers ---

    def enter(self, value: Value, item: cst.BaseExpression) -> None:
        """Grad mode becomes that of a context manager."""
        before = self.state.mode
        self.state.mode = self.entered(value, item, before)
        if self.state.mode is Mode.UNKNOWN and before is not Mode.UNKNOWN:
            self.state.region = self.analysis.region_for(item)

    def entered(self, value: Value, item: cst.BaseExpression, mode: Mode) -> Mode:
        """Grad mode inside `with value:`."""
        if value.kind is Kind.CONTEXT and value.mode is not None:
            return mode if value.mode is Mode.KEEP else value.mode
        if value.quals and value.quals <= known.GRAD_OFF_CONTEXTS:
            return mode  # `with torch.no_grad:` raises
        if value.kind is Kind.INSTANCE and value.cls is not None:
            inside = context_mode(self.analysis, value.cls)
            return mode if inside is Mode.KEEP else inside or Mode.UNKNOWN
        return mode if is_neutral_context(self, value, item) else Mode.UNKNOWN

    def result(self, parts: int | None = None) -> Value:
        """What the function returns, joined over its returns; with `parts`, over those of so many values, if any."""
        if not self.returned:
            return NONE
        fitting = [value for value in self.returned if value.elements is not None and len(value.elements) == parts]
        returned = fitting or self.returned
        differentiated = [value for value in returned if value.idents and value.idents <= self.analysis.proven]
        if differentiated:
            # `return self.other_step(batch)` out of view, next to a loss that was differentiated here.
            returned = [value for value in returned if not value.idents or not value.idents <= self.analysis.unseen]
            returned = returned or self.returned
        value = returned[0]
        for other in returned[1:]:
            value = join(value, other)
        if value.grad is Grad.MIXED and len(returned) > 1:
            value = _carrying_in_each_way(value, returned)
        if value.grad is Grad.MIXED and value.elements is None and not value.boxes:
            value = _carrying_or_a_number(value, returned)
        # `None` at the end is mostly never reached (`if kind == "a": return ... elif ...`): it takes only the proof.
        return value.of_unknown_kind() if self.falls_off and value.is_tensor else value


def _is_switch(test: cst.BaseExpression) -> bool:
    """`if training:`, after `training = False`: somebody will switch it on."""
    return isinstance(test, cst.Name) and test.value not in ("False", "True")


def _note_sums(joined: Iterable[str], before: State, end: State, after: State) -> None:
    """What was a number, or None, before a loop that gave it a graph has one whenever the loop ran at all."""
    for path in joined:
        start = before.vars.get(path)
        if start is None or start.kind not in (Kind.NUMBER, Kind.NONE):
            continue
        value, left = end.vars.get(path), after.vars[path]
        if value is None or value.grad is not Grad.YES or left.grad is not Grad.MIXED:
            continue
        if left.elements is None and not left.boxes:
            after.vars[path] = left.at_times(value.conditions)


def _carrying_in_each_way(joined: Value, returned: Sequence[Value]) -> Value:
    """`return out, variance` or `return out`: whichever it is, something in it carries a graph."""
    parts = [next((p for p in (value, *(value.elements or ())) if p.carries_graph), None) for value in returned]
    conditions = [part.conditions for part in parts if part is not None]
    if len(conditions) < len(parts):
        return joined
    return Value(
        Kind.UNKNOWN,
        Grad.YES,
        conditions=frozenset().union(*conditions),
        roots=joined.roots,
        boxes=joined.boxes,
        weak=True,
    )


def _carrying_or_a_number(joined: Value, returned: Sequence[Value]) -> Value:
    """`if loss is None: return 0`: otherwise the loss, with its graph."""
    carrying = [value for value in returned if value.carries_graph]
    if not carrying or any(value.kind not in (Kind.NUMBER, Kind.NONE) for value in returned if value not in carrying):
        return joined
    return joined.at_times(frozenset().union(*(value.conditions for value in carrying)))


def _pairs(node: cst.Assign) -> list[tuple[cst.BaseExpression, cst.BaseExpression]]:
    """The targets of an assignment with what each is given: of `a, b = x, y` two."""
    target, source = node.targets[0].target, node.value
    if isinstance(target, cst.Tuple) and isinstance(source, cst.Tuple) and len(target.elements) == len(source.elements):
        parts = zip(target.elements, source.elements, strict=True)
        pairs = [(part.value, item.value) for part, item in parts]
        starred = any(isinstance(part, cst.StarredElement) for part in (*target.elements, *source.elements))
        if not starred and any(added_to(*pair) for pair in pairs):
            return pairs
    return [(target, source)]


_LINES = frozenset({cst.SimpleStatementLine, cst.SimpleStatementSuite, cst.IndentedBlock})
_STATEMENTS: dict[type, Callable[..., None]] = {
    cst.Expr: Flow._expr,
    cst.Assign: Flow._assign,
    TypedAssign: Flow._assign,
    cst.AnnAssign: Flow._ann_assign,
    cst.AugAssign: Flow._aug_assign,
    cst.Return: Flow._return_statement,
    cst.Raise: Flow._raise,
    cst.Break: Flow._break,
    cst.Continue: Flow._continue,
    cst.Del: Flow._del,
    cst.Assert: Flow._assert,
    cst.Import: Flow._import,
    cst.ImportFrom: Flow._import,
    cst.FunctionDef: Flow._function_def,
    cst.ClassDef: Flow._class_def,
    cst.If: Flow._if,
    cst.For: Flow._for,
    cst.While: Flow._while,
    cst.With: Flow._with,
    cst.Try: Flow._try,
    cst.TryStar: Flow._try,
    cst.Match: Flow._match,
}
