"""Reading expressions: what value an expression has, and what it does to what it mentions."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics import calls
from memlint.semantics.effects import Effects
from memlint.semantics.events import Backward, Call, Loop
from memlint.semantics.knowledge import torch as known
from memlint.semantics.reading import literal_index, literal_key, parsed_annotation, string_value
from memlint.semantics.scopes import parts_of, path_of, target_names, walk
from memlint.semantics.state import merge
from memlint.semantics.values import (
    FALSE,
    MAX_ALTERNATIVES,
    MIXED,
    NO_GRAD_TENSOR,
    NONE,
    NOTHING,
    NUMBER,
    PARAMETER,
    PLAIN,
    TRUE,
    Condition,
    Grad,
    Kind,
    Mode,
    Proof,
    Value,
    join,
)

if TYPE_CHECKING:
    pass

_BUILTINS = frozenset(dir(builtins))
_OPTIONAL = frozenset({"typing.Optional", "typing.Union"})


class Expressions(Effects):
    """The half of a flow that reads expressions. Its state is set up by `memlint.semantics.flow.Flow`."""

    entry: Mode
    calls: list[Call]
    backwards: list[Backward]
    loops: list[Loop]
    has_forward: bool
    has_backward: bool
    has_step: bool
    read_as_data: dict[int, frozenset[int]]
    compared: set[int]
    differentiating: set[tuple[tuple[int, int], ...]]

    def eval(self, node: cst.CSTNode) -> Value:
        reader = _READERS.get(type(node))
        value = reader(self, node) if reader is not None else PLAIN
        self.just_read[id(node)] = value
        return value

    # --- names and attributes ---

    def lookup(self, name: str, node: cst.CSTNode) -> Value:
        value = self.state.vars.get(name)
        if value is None:
            value = self._outer(name, node)
        elif len(value.idents) > MAX_ALTERNATIVES and value.kind in (Kind.TENSOR, Kind.UNKNOWN):
            value = self.unknown(node, value.roots)
            self.state.vars[name] = value
        if value.kind is Kind.UNKNOWN:
            shown = self.analysis.kind_from_use(self.scope, name)
            if shown is not None:
                return self.with_kind(value, shown)
        return value

    def _outer(self, name: str, node: cst.CSTNode) -> Value:
        found = self.analysis.outer_variable(self.scope, name)
        if found is not None:
            return found
        if name in _BUILTINS and name not in self.scope.bound:
            return self.named(name)
        value = self.unknown(node, NOTHING)
        self.analysis.capture(value.roots)
        return value

    def _attribute(self, node: cst.Attribute) -> Value:
        path = path_of(node)
        base = self.eval(node.value)
        name = node.attr.value
        if base.quals:
            return Value(Kind.CALLABLE, quals=frozenset(self.analysis.attribute_name(q, name) for q in base.quals))
        if path is not None and path in self.state.vars:
            return self.state.vars[path]
        self.use(base, "attribute", name, node)
        value = self._member(base, name, node)
        if value.kind is Kind.UNKNOWN and path is not None:
            shown = self.analysis.kind_from_use(self.scope, path)
            if shown is not None:
                value = self.with_kind(value, shown)
        return value

    def _member(self, base: Value, name: str, node: cst.Attribute) -> Value:
        if base.cls is not None and base.kind in (Kind.INSTANCE, Kind.MODULE):
            member = self.analysis.member(base.cls, name)
            if member is not None:
                return member
        if base.cls is not None and base.boxes and name in (self.analysis.record_fields(base.cls) or ()):
            return self.content_of(base, name)
        if name == "device" and base.is_tensor:
            return Value(Kind.PLAIN, cls="torch.device")
        if base.kind is Kind.NUMBER or base.kind is Kind.PLAIN or name in known.PLAIN_TENSOR_ATTRIBUTES:
            return PLAIN
        if (
            base.kind is Kind.MODULE
            and base.cls is not None
            and base.cls.startswith("torch.nn.")
            and name in ("weight", "bias")
        ):
            return self.with_kind(self.unknown(node, NOTHING), PARAMETER)
        if name == "data" and base.kind is not Kind.MODULE:
            self.read_as_data[id(node)] = self.all_roots(base)
            return NO_GRAD_TENSOR if base.is_tensor else Value(Kind.UNKNOWN)
        if name in known.VIEW_ATTRIBUTES and base.grad is not Grad.NO:
            return self.derived(base.kind, node, [base])
        if base.kind is Kind.MODULE:
            return self.unknown(node, NOTHING)
        root = self._member_root(base, "." + name, node)
        if name in known.GRAPH_OUTPUT_ATTRIBUTES and base.kind is Kind.UNKNOWN and base.grad is Grad.YES:
            return self.derived(Kind.UNKNOWN, node, [base], root)
        return self.unknown(node, self.all_roots(base), root)

    # --- items ---

    def item_path(self, node: cst.Subscript) -> str | None:
        """`logs['loss']` for a name or path with one literal key."""
        base = path_of(node.value)
        if base is None or len(node.slice) != 1:
            return None
        index = node.slice[0].slice
        if not isinstance(index, cst.Index):
            return None
        if isinstance(index.value, (cst.SimpleString, cst.Integer)):
            return f"{base}[{index.value.value}]"
        return f"{base}[-1]" if literal_index(node) == -1 else None

    def _subscript(self, node: cst.Subscript) -> Value:
        base = self.eval(node.value)
        path = self.item_path(node)
        for element in node.slice:
            self.eval_slice(element.slice)
        self.use(base, "subscript", "", node)
        if path is not None and path in self.state.vars:
            return self.state.vars[path]
        if base.quals:
            return base  # `Generic[T]`, `list[int]`
        if base.boxes and isinstance(node.slice[0].slice, cst.Slice):
            return base  # a part of a list is a list
        item = self.element_of(base, node, path)
        return self.one_of_items(item, base, node.value) if self._is_each_key(node) else item

    def eval_slice(self, node: cst.BaseSlice) -> None:
        parts = [node.value] if isinstance(node, cst.Index) else [node.lower, node.upper, node.step]  # type: ignore[attr-defined]
        for part in parts:
            if part is not None:
                self.use(self.eval(part), "argument", "index", part)

    def element_of(self, base: Value, node: cst.CSTNode, path: str | None = None) -> Value:
        """What indexing, unpacking or iterating the value gives."""
        if base.kind is Kind.MODULE and base.elements == ():
            return Value(Kind.MODULE)  # another method fills it
        if base.elements is not None and isinstance(node, cst.Subscript):
            index = literal_index(node)
            if index is not None and -len(base.elements) <= index < len(base.elements):
                return base.elements[index]
        if base.elements is not None:
            value = base.elements[0] if base.elements else PLAIN
            for element in base.elements[1:]:
                value = join(value, element)
            return value
        if base.boxes:
            return self.content_of(base, literal_key(node) or _literal_place(node))
        if base.kind is Kind.TENSOR or (base.kind is Kind.CONTAINER and base.grad is not Grad.NO):
            return self.derived(Kind.TENSOR, node, [base])  # of a container, what `t.chunk(2)` returned
        if base.kind in (Kind.PLAIN, Kind.NUMBER, Kind.NONE):
            return PLAIN
        if base.kind is Kind.LOADER or base.kind is Kind.DATASET:
            return Value(Kind.UNKNOWN, roots=base.roots)
        if base.kind is Kind.MODULE:
            return Value(Kind.MODULE, conditions=base.conditions, weak=base.weak)
        if base.kind is Kind.STATE:
            return Value(Kind.STATE, roots=base.roots, idents=base.idents)
        if base.grad is Grad.NO:
            return Value(Kind.UNKNOWN, roots=base.roots)
        key = path.rpartition("[")[2] if path is not None else self._constant_key(node)
        root = self._member_root(base, "[" + key, node) if key is not None else None
        if key in _LOSS_KEYS and base.grad is Grad.YES:
            return self.derived(Kind.UNKNOWN, node, [base], root)
        return self._item_of(base, node, root)

    def _item_of(self, base: Value, node: cst.CSTNode, root: int | None) -> Value:
        """Of `losses["box"]` nothing is known, but that `sum(losses.values())` may be differentiated."""
        item = self.unknown(node, base.roots, root)
        each = [self.analysis.roots[ident].members.get("[each]") for ident in base.idents]
        if len(each) == 1 and each[0] is not None and isinstance(node, cst.Subscript):
            for ident in item.idents - base.idents:
                self.analysis.claim(ident, frozenset({Proof(each[0])}))
        return item

    def one_of_items(self, item: Value, whole: Value, expression: cst.BaseExpression) -> Value:
        """What an iteration gets of a dictionary out of view: one of its items.

        Whoever goes through all of them comes to the one under a literal key that was differentiated.
        """
        if len(whole.idents) != 1 or Grad.MIXED in (whole.grad, item.grad) or not self.analysis.unproven_yet(item):
            return item
        carrying = self._differentiated_item(whole, path_of(expression))
        return item if carrying is None else item.at_times(carrying)

    def _differentiated_item(self, whole: Value, path: str | None) -> frozenset[Condition] | None:
        """What shows that an item under a literal key carries a graph; None: nothing does."""
        proven, held = self.analysis.proven, self.state.vars
        for name, root in self.literal_items(whole).items():
            if root in proven and f"{path}{name}" not in held:
                return frozenset({Proof(root)})
        put = (value for known, value in held.items() if known.startswith((f"{path}['", f'{path}["')))
        shown = (value.conditions for value in put if value.carries_graph and value.idents and value.idents <= proven)
        return next(shown, None)

    def literal_items(self, whole: Value) -> dict[str, int]:
        """The definitions of the items of a dictionary out of view that were read under literal keys: `['loss']`."""
        members = self.analysis.roots[next(iter(whole.idents))].members if len(whole.idents) == 1 else {}
        return {name: root for name, root in members.items() if name.startswith(("['", '["'))}

    def hide_items(self, test: cst.BaseExpression, target: cst.BaseExpression, loop: Loop) -> dict[Value, Value] | None:
        """`if key != "loss":` in a loop over items: none of those that are left need carry a graph.

        What the variables hold now, with what they held; None where the condition asks nothing of them.
        """
        names = [name for name in target_names(target) if name in self.state.vars]
        if not any(isinstance(part, cst.Name) and part.value in names for part in walk(test)):
            return None
        loop.filters += 1
        held = {}
        for name in names if isinstance(target, cst.Tuple) else ():
            value = self.state.vars[name]
            if value.partly is not None:
                hidden = Value(value.kind, Grad.MIXED, roots=value.roots)
                self.state.vars[name] = hidden
                held[hidden] = value
        return held

    def show_items(self, held: dict[Value, Value], loop: Loop) -> None:
        """`if key not in totals: totals[key] = 0`: behind a condition that leaves none out, all are there again."""
        loop.filters -= 1
        for name, value in self.state.vars.items():
            if value in held:
                self.state.vars[name] = held[value]

    def _is_each_key(self, node: cst.Subscript) -> bool:
        """`losses[name]` where a loop goes through the keys of `losses`, and leaves none out."""
        index, path = node.slice[0].slice, path_of(node.value)
        if path is None or not isinstance(index, cst.Index) or not isinstance(index.value, cst.Name):
            return False
        loops = self.loop.outer() if self.loop is not None else ()
        return any(loop.gives_keys_of(path, index.value.value) and not loop.filters for loop in loops)

    def content_of(self, base: Value, key: str | None) -> Value:
        """What a container holds, under the key where that is known."""
        content, items = MIXED, None
        for box in base.boxes:
            content = self.analysis.boxes[box].content
            items = self.analysis.boxes[box].items
            item = items.get(key) if key is not None and items is not None and len(base.boxes) == 1 else None
            if item is not None and not item.boxes:
                return item
        # Nested containers are taken for parts of the outer one.
        value = Value(
            content.kind,
            content.grad,
            conditions=content.conditions,
            roots=self.all_roots(base),
            boxes=base.boxes | content.boxes,
            cls=content.cls if content.kind is Kind.INSTANCE else None,
        )
        if content.grad is not Grad.MIXED or len(base.boxes) != 1 or items is None:
            return value
        # Whoever goes through all items comes to the one with a graph.
        carrying = next((item for item in items.values() if item.grad is Grad.YES), None)
        return value if carrying is None else value.at_times(carrying.conditions)

    def items_of(self, value: Value) -> dict[str, Value] | None:
        """What stands under each key of a dictionary, where that is known."""
        return self.analysis.boxes[next(iter(value.boxes))].items if len(value.boxes) == 1 else None

    def note_item(self, key: str | None, known: dict[int, dict[str, Value] | None], value: Value) -> None:
        """What stands under a literal key from now on; under another key anything may."""
        if len(known) != 1 or key is None:
            return
        ((box, items),) = known.items()
        if items is not None:
            before = items.get(key)
            self.analysis.boxes[box].items = {**items, key: value if before is None else join(before, value)}

    def output_named(self, base: Value, target: cst.BaseExpression) -> Value | None:
        """`logits` of `logits, state = model(x)`: one of several outputs, by its name a part of the graph."""
        if not isinstance(target, cst.Name) or len(base.idents) != 1 or base.grad is not Grad.YES:
            return None
        if not self.analysis.roots[next(iter(base.idents))].is_forward or base.kind is not Kind.UNKNOWN:
            return None
        if known.OUTPUT_WORDS.isdisjoint(target.value.lower().split("_")):
            return None
        return self.derived(Kind.UNKNOWN, target, [base], self.root(target)).as_weak()

    def _constant_key(self, node: cst.CSTNode) -> str | None:
        """The key of `logs[self.metric]` and `logs[name]`, where the function does not bind it."""
        index = node.slice[0].slice if isinstance(node, cst.Subscript) and len(node.slice) == 1 else None
        path = path_of(index.value) if isinstance(index, cst.Index) else None
        if path is None or ("." in path and path in self.state.vars):
            return None
        head, dot, _ = path.partition(".")
        if head == "self" and dot:
            return path + "]"
        value = self.state.vars.get(head)
        roots = self.analysis.roots
        given = value is not None and value.idents and all(isinstance(roots[i].node, cst.Param) for i in value.idents)
        return path + "]" if given else None

    # --- operators ---

    def _binary(self, node: cst.BinaryOperation) -> Value:
        # Long sums lean to the left: go down the spine without recursion.
        spine: list[cst.BinaryOperation] = []
        leftmost: cst.BaseExpression = node
        while isinstance(leftmost, cst.BinaryOperation):
            spine.append(leftmost)
            leftmost = leftmost.left
        value = self.eval(leftmost)
        for operation in reversed(spine):
            right = self.eval(operation.right)
            self.use(value, "operand", "", operation)
            self.use(right, "operand", "", operation)
            if isinstance(operation.operator, cst.Divide) and self._is_parameter(right):
                right = NUMBER  # `loss / accumulation_steps`
            total = self.operation(value, right, operation)
            if isinstance(operation.operator, (cst.Add, cst.Subtract)):
                self.note_summands(total, (value, right))
            elif isinstance(operation.operator, (cst.Multiply, cst.Divide)):
                self._note_scaled(total, (value, right))
            value = total
        return value

    def note_summands(self, total: Value, parts: Iterable[Value]) -> None:
        """Whoever differentiates the total differentiates each of its parts."""
        for ident in total.idents:
            root = self.analysis.roots[ident]
            root.summands = root.summands.union(*(part.proves for part in parts))
            root.terms = root.terms.union(*(part.idents for part in parts))

    def _note_scaled(self, total: Value, factors: tuple[Value, Value]) -> None:
        carrying = [factor for factor in factors if factor.grad is Grad.YES]
        for ident in total.idents if len(carrying) == 1 else ():
            self.analysis.roots[ident].terms |= carrying[0].idents

    def _is_parameter(self, value: Value) -> bool:
        """Whether the value is nothing but what the caller gave, of unknown kind."""
        roots = self.analysis.roots
        if value.kind is not Kind.UNKNOWN or not value.idents:
            return False
        return all(isinstance(roots[root].node, cst.Param) for root in value.idents)

    def _unary(self, node: cst.UnaryOperation) -> Value:
        value = self.eval(node.expression)
        self.use(value, "operand", "", node)
        if isinstance(node.operator, cst.Not):
            return NUMBER
        if isinstance(node.operator, cst.BitInvert):
            return Value(value.kind)
        return self.derived(value.kind, node, [value]) if value.grad is not Grad.NO else value

    def _boolean(self, node: cst.BooleanOperation) -> Value:
        left = self.eval(node.left)
        self.use(left, "test", "", node)
        self.guards += 1
        right = self.eval(node.right)
        self.guards -= 1
        return join(left, right)

    def _comparison(self, node: cst.Comparison) -> Value:
        values = [self.eval(node.left), *(self.eval(target.comparator) for target in node.comparisons)]
        for value in values:
            self.use(value, "operand", "comparison", node)
        if all(isinstance(target.operator, _TRUTH_OPERATORS) for target in node.comparisons):
            return NUMBER  # `x is None`
        for value in values:
            self.compared |= self.all_roots(value)
        return NO_GRAD_TENSOR if any(value.is_tensor for value in values) else Value(Kind.UNKNOWN)

    def _conditional(self, node: cst.IfExp) -> Value:
        truth = self.test(node.test)
        before = self.state
        self.guards += 1
        self.state = before.copy()
        value = self.eval(node.body)
        then = self.state
        self.state = before
        other = self.eval(node.orelse)
        self.state = merge(then, self.state)
        self.guards -= 1
        if truth is not None:
            return value if truth else other
        return join(value, other)

    def test(self, node: cst.BaseExpression) -> bool | None:
        """Read a condition; its truth where it is a literal."""
        value = self.eval(node)
        self.use(value, "test", "", node)
        return value.literal if isinstance(value.literal, bool) else None

    def _walrus(self, node: cst.NamedExpr) -> Value:
        value = self.eval(node.value)
        self.assign(node.target, value, node.value)
        return value

    def assign(self, target: cst.BaseExpression, value: Value, source: cst.BaseExpression) -> None:
        """Bind a target; statements know how."""

    # --- displays and comprehensions ---

    def _tuple(self, node: cst.Tuple) -> Value:
        elements = tuple(self.eval(element.value) for element in node.elements)
        starred = [isinstance(element, cst.StarredElement) for element in node.elements]
        if any(starred):
            return self._tuple_unpacking(node, elements, starred.index(True))
        roots = frozenset().union(*(self.all_roots(element) for element in elements)) if elements else NOTHING
        boxes = frozenset().union(*(element.boxes for element in elements)) if elements else NOTHING
        is_deep = max((element.depth for element in elements), default=0) >= _MAX_DEPTH
        return Value(Kind.CONTAINER, roots=roots, elements=None if is_deep else elements, boxes=boxes)

    def _tuple_unpacking(self, node: cst.Tuple, elements: tuple[Value, ...], known: int) -> Value:
        """`(loss, *outputs[1:])`: what stands before the first star has its place."""
        made = self.box(node, elements)
        places = (str(place) if place < known else f"*{place}" for place in range(len(elements)))
        for box in made.boxes:
            self.analysis.boxes[box].items = dict(zip(places, elements, strict=True))
        return made

    def _list(self, node: cst.List | cst.Set) -> Value:
        values = []
        for element in node.elements:
            value = self.eval(element.value)
            self.use(value, "store", "display", node)
            self.hand_over(value)
            values.append(value)
        return self.box(node, values)

    def _dict(self, node: cst.Dict) -> Value:
        values: list[Value] = []
        items: dict[str, Value] | None = {}
        for element in node.elements:
            key = self.eval(element.key).literal if isinstance(element, cst.DictElement) else None
            value = self.eval(element.value)
            self.use(value, "store", "display", node)
            self.hand_over(value)
            inside = self.items_of(value) if isinstance(element, cst.StarredDictElement) else None
            values += [value] if inside is None else inside.values()
            if items is not None and isinstance(key, str):
                items[key] = value
            else:
                items = None if items is None or inside is None else {**items, **inside}
        made = self.box(node, values)
        for box in made.boxes:
            self.analysis.boxes[box].items = items
        return made

    def box(self, node: cst.CSTNode, values: Iterable[Value], of_root: int | None = None) -> Value:
        """A fresh container with these contents; `of_root`: which of those that the expression makes."""
        box = self.analysis.box_for(node, self.loop, of_root)
        for value in values:
            self.analysis.put(box, value)
        return Value(Kind.CONTAINER, roots=NOTHING, boxes=frozenset({box}))

    def _comprehension(self, node: cst.ListComp | cst.SetComp | cst.GeneratorExp) -> Value:
        return self.box(node, [self._comp(node, node.for_in, [node.elt])])

    def _dict_comprehension(self, node: cst.DictComp) -> Value:
        value = self._comp(node, node.for_in, [node.key, node.value])
        if value.kind is Kind.STATE:
            return value  # `{k.removeprefix("module."): v for k, v in state.items()}`
        return self.box(node, [value])

    def _comp(self, node: cst.CSTNode, clause: cst.CompFor, results: list[cst.BaseExpression]) -> Value:
        """The elements of a comprehension; its body is a loop whose variables are its own."""
        outer_vars = self.state.vars.copy()
        outer_loop, outer_guards = self.loop, self.guards
        self.guards = 0
        current: cst.CompFor | None = clause
        first: Loop | None = None
        while current is not None:
            iterated = self.eval(current.iter)
            self.use(iterated, "iterate", "", current)
            loop = self.new_loop(node if first is None else current, iterated, current)
            first = first or loop
            self.loop = loop
            self.assign_element(current.target, iterated, loop, current.iter)
            for condition in current.ifs:
                self.test(condition.test)
                self.hide_items(condition.test, current.target, loop)
                self.guards = 1
            current = current.inner_for_in
        values = [self.eval(result) for result in results]
        value = values[-1]
        self.use(value, "store", "comprehension", node)
        self.loop, self.guards = outer_loop, outer_guards
        self.state.vars = outer_vars
        return value

    def new_loop(self, node: cst.CSTNode, iterated: Value, clause: cst.For | cst.CompFor | None) -> Loop:
        iterable = clause.iter if clause is not None else None
        element = self.analysis.marker_for(node if iterable is None else iterable)
        source, item = self._source(clause.iter, clause.target) if clause is not None else (None, None)
        value = self.reread(source) if source is not None and source is not iterable else iterated
        loop = Loop(node, self.scope, self.loop, iterated, iterable, element, source, value, item)
        loop.draws_from_loader = iterated.kind is Kind.LOADER
        if not self.quiet:
            self.loops.append(loop)
        return loop

    def _source(
        self, iterable: cst.BaseExpression, target: cst.BaseExpression
    ) -> tuple[cst.BaseExpression, cst.BaseExpression]:
        """What a loop goes through, and what it binds an item of that to, without what counts or draws a bar."""
        while isinstance(iterable, cst.Call) and iterable.args and iterable.args[0].star == "":
            quals = self.reread(iterable.func).quals
            if quals and quals <= known.COUNTING_WRAPPERS:
                if not isinstance(target, cst.Tuple) or len(target.elements) != 2:
                    break
                target = target.elements[1].value
            elif not quals or not quals <= known.WATCHING_WRAPPERS:
                break
            iterable = iterable.args[0].value
        return iterable, target

    def assign_element(
        self, target: cst.BaseExpression, iterated: Value, loop: Loop, iterable: cst.BaseExpression
    ) -> None:
        """Bind a loop's target to what one iteration is given."""
        self.assign(target, self._element(iterated, loop, target), iterable)

    def _element(self, iterated: Value, loop: Loop, node: cst.CSTNode) -> Value:
        mark = frozenset({loop.element})
        if iterated.kind is Kind.LOADER:
            return iterated.elements[0].holding(mark) if iterated.elements else Value(Kind.UNKNOWN, roots=mark)
        if iterated.kind is Kind.NUMBER:
            return NUMBER
        if iterated.elements is not None and iterated.mode is Mode.KEEP:  # an iteration wrapper: its one element
            return iterated.elements[0].holding(mark)
        element = self.element_of(iterated, node)
        return element.holding(mark)

    # --- the rest ---

    def _string(self, node: cst.CSTNode) -> Value:
        return Value(Kind.PLAIN, cls="str", literal=string_value(node))

    def _formatted(self, node: cst.FormattedString) -> Value:
        for part in node.parts:
            if isinstance(part, cst.FormattedStringExpression):
                self.use(self.eval(part.expression), "format", "", part)
        return PLAIN

    def _integer(self, node: cst.Integer) -> Value:
        return Value(Kind.NUMBER, literal=node.value)

    def _number(self, node: cst.CSTNode) -> Value:
        return NUMBER

    def _lambda(self, node: cst.Lambda) -> Value:
        scope = self.analysis.scope_of(node)
        self.capture_names(scope.words_within, node)
        return Value(Kind.CALLABLE, quals=frozenset({"<lambda>"}))

    def capture_names(self, words: frozenset[str], node: cst.CSTNode) -> None:
        for name in words:
            value = self.state.vars.get(name)
            if value is not None and value.idents:
                self.use(value, "captured", name, node)

    def _await(self, node: cst.Await) -> Value:
        return self.eval(node.expression)

    def _yield(self, node: cst.Yield) -> Value:
        inner = node.value.item if isinstance(node.value, cst.From) else node.value
        if inner is not None:
            value = self.eval(inner)
            self.use(value, "yield", "", node)
            self.escape(value)
        return self.unknown(node, NOTHING)

    def _starred(self, node: cst.StarredElement) -> Value:
        return self.element_of(self.eval(node.value), node)

    def _name_value(self, node: cst.Name) -> Value:
        constant = _CONSTANTS.get(node.value)
        return constant if constant is not None else self.lookup(node.value, node)

    def annotated(self, annotation: cst.BaseExpression) -> Value | None:
        """What an annotation says of a value; None where it says nothing that memlint knows."""
        if isinstance(annotation, cst.SimpleString):
            text = str(annotation.evaluated_value)
            if "[" not in text and "|" not in text:
                return self.analysis.kind_of_annotation(frozenset({text}))
            parsed = parsed_annotation(text)
            return None if parsed is None else self.annotated(parsed)
        inner = self._but_for_none(annotation)
        if inner is not None:
            return self.annotated(inner)
        if not isinstance(annotation, (cst.Name, cst.Attribute)):
            return None
        return self.analysis.kind_of_annotation(self.eval(annotation).quals)

    def _but_for_none(self, annotation: cst.BaseExpression) -> cst.BaseExpression | None:
        """`X` of `Optional[X]` and `X | None`: who uses the value has made sure that it is there."""
        members: list[cst.BaseExpression] = []
        if isinstance(annotation, cst.BinaryOperation) and isinstance(annotation.operator, cst.BitOr):
            members = [annotation.left, annotation.right]
        elif isinstance(annotation, cst.Subscript) and self.eval(annotation.value).quals & _OPTIONAL:
            members = [item.slice.value for item in annotation.slice if isinstance(item.slice, cst.Index)]
        left = [item for item in members if not (isinstance(item, cst.Name) and item.value == "None")]
        return left[0] if len(left) == 1 else None

    def pattern_names(self, pattern: cst.CSTNode) -> Iterator[str]:
        if isinstance(pattern, cst.MatchAs) and pattern.name is not None:
            yield pattern.name.value
        for child in parts_of(pattern):
            yield from self.pattern_names(child)


def _literal_place(node: cst.CSTNode) -> str | None:
    """`0` of `outputs[0]`: the place of what stands before the first star of a tuple."""
    index = literal_index(node) if isinstance(node, cst.Subscript) else None
    return None if index is None else str(index)


# `x = (x, x)` in a row doubles each time; nobody unpacks deeper than this.
_MAX_DEPTH = 4
_LOSS_KEYS = frozenset({"'loss']", '"loss"]', "'logits']", '"logits"]'})
_TRUTH_OPERATORS = (cst.Is, cst.IsNot, cst.In, cst.NotIn)
_CONSTANTS = {"True": TRUE, "False": FALSE, "None": NONE, "Ellipsis": PLAIN}

_READERS: dict[type, Callable[..., Value]] = {
    cst.Name: Expressions._name_value,
    cst.Attribute: Expressions._attribute,
    cst.Call: calls.read_call,
    cst.Subscript: Expressions._subscript,
    cst.BinaryOperation: Expressions._binary,
    cst.UnaryOperation: Expressions._unary,
    cst.BooleanOperation: Expressions._boolean,
    cst.Comparison: Expressions._comparison,
    cst.IfExp: Expressions._conditional,
    cst.NamedExpr: Expressions._walrus,
    cst.Tuple: Expressions._tuple,
    cst.List: Expressions._list,
    cst.Set: Expressions._list,
    cst.Dict: Expressions._dict,
    cst.ListComp: Expressions._comprehension,
    cst.SetComp: Expressions._comprehension,
    cst.GeneratorExp: Expressions._comprehension,
    cst.DictComp: Expressions._dict_comprehension,
    cst.Lambda: Expressions._lambda,
    cst.Await: Expressions._await,
    cst.Yield: Expressions._yield,
    cst.StarredElement: Expressions._starred,
    cst.StarredDictElement: Expressions._starred,
    cst.FormattedString: Expressions._formatted,
    cst.SimpleString: Expressions._string,
    cst.ConcatenatedString: Expressions._string,
    cst.Integer: Expressions._integer,
    cst.Float: Expressions._number,
    cst.Imaginary: Expressions._number,
}
