"""What the steps of a Lightning module (or callback) put into lists of the object: who empties these, and when.

Lightning calls a step once a batch and keeps nothing of what it returns; a list of the object is the author's to empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.attribute_reads import AttributeReads
from memlint.semantics.events import Call, Store
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import lightning_hooks as known
from memlint.semantics.modes import is_known_base
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.questions import Question
from memlint.semantics.retention import Kept, Retention
from memlint.semantics.scopes import Scope, assignments_in, chain_of, parameters, path_of, walk
from memlint.semantics.values import Kind, Value


@dataclass(frozen=True, eq=False)
class StepOutputs:
    """A list of a Lightning object that a step fills: it is never emptied, or keeps graphs until it is, or both."""

    store: Store
    attribute: str
    step: str
    """The step that fills it."""
    epoch_end: Scope | None
    """The hook that uses the list once an epoch; None where the list is emptied, or nobody uses it."""
    keeps_graph: bool
    questions: frozenset[Question]
    """What must be answered with yes for `keeps_graph`."""
    on_host: bool
    """The elements were moved to host memory."""
    certain: bool
    is_unread: bool = False
    """Nobody in the project uses the list, or empties it."""

    @property
    def only_in_tests(self) -> bool:
        return self.step in known.TEST_STEPS

    @property
    def last_of_epoch_end(self) -> cst.BaseStatement | None:
        """The last statement of the hook; None where nothing can follow it."""
        node = self.epoch_end.node if self.epoch_end is not None else None
        if not isinstance(node, cst.FunctionDef) or not isinstance(node.body, cst.IndentedBlock):
            return None
        last = node.body.body[-1]
        if isinstance(last, cst.SimpleStatementLine) and isinstance(last.body[-1], (cst.Return, cst.Raise)):
            return None
        return last


def step_outputs(module: Module) -> Iterator[StepOutputs]:
    if module.words.isdisjoint(known.STEPS):
        return
    seen: set[int] = set()
    for scope in module.scopes:
        if scope.is_class and any(is_lightning(base) for base in module.analysis.base_names(scope.qualname)):
            for found in _of_class(module, scope):
                if id(found.store) not in seen:  # else a class derived from this one has told it
                    seen.add(id(found.store))
                    yield found


def step_sums(module: Module) -> Iterator[Retention]:
    """`self.total += loss` in a step whose loss a framework differentiates when it returns: that has freed the rest.

    In `training_step` of Lightning, and in `compute_loss` of Transformers, of which lists count too.
    """
    if not module.words.isdisjoint(known.STEPS):
        for scope in _classes(module, is_lightning):
            steps = reached_from(module, scope, known.TRAINING_STEPS)
            yield from (_kept_nodes(store) for store in module.stores if store.scope in steps and _sums(module, store))
    if not module.words.isdisjoint(known.LOSS_METHODS):
        for scope in _classes(module, _is_trainer):
            steps = reached_from(module, scope, known.LOSS_METHODS)
            for store in module.stores:
                if store.scope in steps and _keeps_part_of_loss(module, scope, store):
                    yield _kept_nodes(store)


def _classes(module: Module, is_base: Callable[[str], bool]) -> Iterator[Scope]:
    for scope in module.scopes:
        if scope.is_class and any(is_base(base) for base in module.analysis.base_names(scope.qualname)):
            yield scope


def _kept_nodes(store: Store) -> Retention:
    return Retention(store, None, Kept.NODES, frozenset(), True, False, None, True)


def _sums(module: Module, store: Store) -> bool:
    is_sum = store.how == "accumulate" and (store.path or "").startswith("self.") and store.loop is None
    return is_sum and store.root not in module.analysis.differentiated and _is_the_loss(module, store)


def _keeps_part_of_loss(module: Module, owner: Scope, store: Store) -> bool:
    """`self.parts.append(aux)`, where the loss that is returned was computed from `aux`."""
    flow, attribute = module.flow_of(store.scope), (store.path or "").removeprefix("self.")
    if flow is None or not (store.path or "").startswith("self.") or store.loop is not None:
        return False
    if store.root in module.analysis.differentiated or not store.value.carries_graph or not store.value.idents:
        return False
    if store.how != "accumulate" and (not store.boxes or is_emptied(module, owner, attribute, store)):
        return False
    return any(store.value.idents <= value.roots for value in flow.returned if value.kind is not Kind.NONE)


def _is_trainer(base: str) -> bool:
    return base.partition(".")[0] in known.TRAINER_PACKAGES and base.rpartition(".")[2].endswith("Trainer")


def is_lightning(base: str) -> bool:
    return base.partition(".")[0] in known.PACKAGES and base.rpartition(".")[2] in known.CLASSES


def _of_class(module: Module, owner: Scope) -> Iterator[StepOutputs]:
    bases = bases_in_view(module, owner)
    steps = reached_from(module, owner, known.STEPS, bases)
    of_training = reached_from(module, owner, known.TRAINING_STEPS, bases)
    ends = reached_from(module, owner, known.EPOCH_ENDS, bases)
    reported: set[str] = set()
    for store in module.stores:
        attribute = attribute_of(store)
        step = of_training.get(store.scope) if _is_for_training(store, attribute) else None
        step = step or steps.get(store.scope)
        if step is None or attribute is None or not store.boxes or _is_bounded(module, store):
            continue
        end = None
        if attribute not in reported and _may_be_big(module, store):
            end = _using(owner, attribute, ends)
            if end is not None and is_emptied(module, owner, attribute, store):
                end = None
        questions = _graph_kept(module, store, step)
        unread = end is None and questions is None and _is_unread(module, owner, store, attribute, step)
        if end is None and questions is None and not unread:
            continue
        if end is not None:
            reported.add(attribute)
        yield StepOutputs(
            store,
            attribute,
            step,
            end,
            questions is not None,
            questions or frozenset(),
            _on_host(store.scope, store.value_node),
            _is_certain(module, owner, store),
            unread,
        )


def _is_for_training(store: Store, attribute: str | None) -> bool:
    """In a method of several steps: without a condition, or in the branch of training, as the list's name says."""
    return not store.guarded or (attribute is not None and not words_of(attribute).isdisjoint(known.TRAINING_WORDS))


def _is_unread(module: Module, owner: Scope, store: Store, attribute: str, step: str) -> bool:
    """Outputs of the network that a validation step puts away, and that nobody in the project mentions again.

    A list of losses may be a history for somebody at a prompt.
    """
    if step not in known.VALIDATION_STEPS or store.guarded or _on_host(store.scope, store.value_node):
        return False
    named = words_of(attribute) | words_of((path_of(store.value_node) or "").rpartition(".")[2])
    if named.isdisjoint(known.OUTPUT_PARAMETERS) or is_emptied(module, owner, attribute, store):
        return False
    view, reads = module.analysis.view, module.once(AttributeReads)
    elsewhere = ((rf"\.{attribute}\b",), (f'"{attribute}"',), (f"'{attribute}'",))
    if view is not None and view.another_file_matches(*elsewhere):
        return False
    return all(reads.is_bound(node) or node is store.target for node in reads.named(attribute))


def attribute_of(store: Store) -> str | None:
    """`outputs` of `self.outputs.append(x)` and `self.outputs["val"].append(x)`."""
    owner, _, attribute = (store.path or "").partition(".")
    return attribute if owner == "self" and attribute.isidentifier() and store.how != "accumulate" else None


def _is_bounded(module: Module, store: Store) -> bool:
    """`deque(maxlen=...)`, or a list that does not belong to the object alone."""
    boxes = [module.box(index) for index in store.boxes]
    return any(box.bounded or box.returned for box in boxes)


# --- who calls what ---


def reached_from(
    module: Module, owner: Scope, names: frozenset[str], bases: tuple[Scope, ...] = ()
) -> dict[Scope, str]:
    """The methods of these names, and those of the class that they call: method -> the name by which it is reached.

    `bases` are the classes of this file from which the class inherits methods.
    """
    methods: dict[str, Scope] = {}
    for cls in (owner, *bases):
        for child in cls.children:
            if child.is_function:
                methods.setdefault(child.name, child)
    reached: dict[Scope, str] = {}
    pending = [(child, name) for name, child in methods.items() if name in names]
    while pending:
        scope, name = pending.pop(0)
        if scope in reached:
            continue
        reached[scope] = name
        for call in module.calls_in(scope):
            if len(call.callee.quals) == 1:
                callee = module.analysis.scope_named(next(iter(call.callee.quals)))
                if callee is not None and callee.parent in (owner, *bases):
                    pending.append((methods.get(callee.name, callee), name))
    return reached


def bases_in_view(module: Module, owner: Scope) -> tuple[Scope, ...]:
    """The classes of this file that a class derives from."""
    bases = module.analysis.base_names(owner.qualname)
    return tuple(scope for scope in module.scopes if scope.is_class and scope.qualname in bases and scope is not owner)


def _using(owner: Scope, attribute: str, ends: dict[Scope, str]) -> Scope | None:
    """The hook that reads the attribute once an epoch, itself or through a method that it calls."""
    for scope, name in ends.items():
        if attribute in scope.words_within:
            return next((child for child in owner.children if child.name == name), scope)
    return None


# --- is it emptied? ---


def is_emptied(module: Module, owner: Scope, attribute: str, store: Store) -> bool:
    """By anybody in this file who may: not only by the right hook."""
    if owner.words_within & known.DYNAMIC_WORDS:
        return True
    if any(empties(module, scope, attribute, owner) for scope in module.scopes):
        return True
    return any(_may_empty(module, call, store) for flow in module.flows for call in flow.calls)


def empties(module: Module, scope: Scope, attribute: str, owner: Scope) -> bool:
    """Whether the scope clears the attribute of an object of the class, or sets it anew."""
    is_relative = _is_relative(module, scope, owner)
    return _clears_path(scope, attribute, is_relative) or (
        scope.is_function and _sets_anew(scope, attribute, is_relative)
    )


def _is_relative(module: Module, scope: Scope, owner: Scope) -> bool:
    """Whether `self` in the scope may be an object of the class: in its own methods, those of bases and subclasses."""
    cls = scope.enclosing_class()
    if cls is None or cls is owner:
        return cls is owner
    bases = module.analysis.base_names
    return owner.qualname in bases(cls.qualname) or cls.qualname in bases(owner.qualname)


def _clears_path(scope: Scope, attribute: str, is_relative: bool) -> bool:
    return any(
        methods & known.EMPTYING_METHODS and attribute in parts and (is_relative or parts[0] != "self")
        for path, methods in scope.methods_called.items()
        if len(parts := path.split(".")) > 1
    )


def _sets_anew(scope: Scope, attribute: str, is_relative: bool) -> bool:
    """A method that assigns the attribute (or an item or slice of it), or deletes it."""
    if scope.name in known.ONCE or attribute not in scope.words:
        return False
    for node in walk(scope.node):
        targets: list[cst.BaseExpression] = []
        if isinstance(node, cst.Assign) and not _adds_to(node, attribute):
            targets = [target.target for target in node.targets]
        elif isinstance(node, (cst.AnnAssign, cst.Del)):
            targets = [node.target]
        parts = (item for target in targets for item in walk(target))
        if any(_is_attribute(item, attribute) and (is_relative or not _is_of_self(item)) for item in parts):
            return True
    return False


def _is_attribute(node: cst.CSTNode, attribute: str) -> bool:
    return isinstance(node, cst.Attribute) and node.attr.value == attribute


def _is_of_self(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Attribute) and path_of(node.value) == "self"


def _adds_to(node: cst.Assign, attribute: str) -> bool:
    """`self.outputs = self.outputs + [x]`."""
    value = node.value
    return (
        isinstance(value, cst.BinaryOperation)
        and isinstance(value.operator, cst.Add)
        and _is_attribute(value.left, attribute)
    )


def _may_empty(module: Module, call: Call, store: Store) -> bool:
    if call.method in known.EMPTYING_METHODS and call.receiver is not None and call.receiver.boxes & store.boxes:
        return True
    if call.names(frozenset({"getattr"})) and len(call.positional) > 1:
        # `getattr(self, f"{stage}_outputs").clear()`
        first, second = call.positional[0], call.positional[1]
        return path_of(first.expression) == "self" and second.value.literal is None
    given = [index for index, argument in enumerate(call.positional) if argument.value.boxes & store.boxes]
    return any(_empties_parameter(module, qual, index) for qual in call.callee.quals for index in given)


def _empties_parameter(module: Module, qual: str, index: int) -> bool:
    scope = module.analysis.scope_named(qual)
    if scope is None or not isinstance(scope.node, cst.FunctionDef):
        return False
    bound = scope.parent is not None and scope.parent.is_class
    params = parameters(scope.node.params)[index : index + (2 if bound else 1)]
    return any(scope.methods_called.get(param.name.value, set()) & known.EMPTYING_METHODS for param in params)


# --- what is in it? ---


def _may_be_big(module: Module, store: Store) -> bool:
    """Numbers and strings do not matter. What is unknown and used once an epoch is taken for a batch's tensors."""
    return any(_is_big(store.scope, part, store.value_node) for part in _parts(module, store.value))


def _parts(module: Module, value: Value) -> Iterator[Value]:
    """The value, or what is in the dictionary or tuple that it is."""
    if value.elements:
        for element in value.elements:
            yield from _parts(module, element)
    elif value.boxes:
        yield from (module.box(index).content for index in value.boxes)
    else:
        yield value


def _is_big(scope: Scope, value: Value, node: cst.BaseExpression) -> bool:
    if value.kind is Kind.PLAIN:
        return _on_host(scope, node)  # an array rather than a string
    return value.kind not in (Kind.NUMBER, Kind.NONE)


def _on_host(scope: Scope, node: cst.BaseExpression) -> bool:
    """`x.cpu()`, `x.detach().cpu().numpy()`, a display of nothing else, or a variable that was last set to such."""
    if isinstance(node, cst.Name):
        made = assignments_in(scope.node).get(node.value)
        return made is not None and not isinstance(made[-1].value, cst.Name) and _on_host(scope, made[-1].value)
    if isinstance(node, (cst.Dict, cst.Tuple, cst.List)):
        return bool(node.elements) and all(_on_host(scope, element.value) for element in node.elements)
    return any(call.func.attr.value in known.HOST_METHODS for call in chain_of(node))  # type: ignore[attr-defined]


# --- does it keep graphs? ---


def _graph_kept(module: Module, store: Store, step: str) -> frozenset[Question] | None:
    """In training: what is left to ask about whether the stored value carries a graph; None: it does not."""
    value = store.value
    if step not in known.TRAINING_STEPS or store.root in module.analysis.differentiated:
        return None
    if not value.carries_graph:
        return frozenset() if _is_what_is_returned(module, store) else None
    if not _trains(module, store):
        return None
    if _is_the_loss(module, store) or _is_what_is_returned(module, store):
        return frozenset()
    return module.questions(value.conditions)


def _trains(module: Module, store: Store) -> bool:
    """A `training_step` that returns nothing, and runs no backward pass, only looks at a model: mostly a frozen one."""
    flow = module.flow_of(store.scope)
    if flow is None or store.scope.name != "training_step":
        return True
    return flow.has_backward or any(value.kind is not Kind.NONE for value in flow.returned)


def _is_the_loss(module: Module, store: Store) -> bool:
    """What `training_step` returns, or returns under "loss", Lightning differentiates: it carries a graph.

    Also where the step returns what a method has made and stored: `return self.shared_step(batch, "train")`.
    """
    owner = store.scope.enclosing_class()
    step = module.analysis.method(owner.qualname, "training_step") if owner is not None else None
    flow = module.flow_of(step) if step is not None else None
    if flow is None or not store.value.idents:
        return False
    return any(store.value.idents & _differentiated_by_lightning(module, flow, value) for value in flow.returned)


def _is_what_is_returned(module: Module, store: Store) -> bool:
    """The very object that `training_step` returns: the loss, or a dictionary with the loss in it.

    Lightning differentiates the loss in it, and leaves the object as it is.
    """
    flow = module.flow_of(store.scope)
    if flow is None or store.scope.name != "training_step" or store.how != "append" or store.guarded:
        return False
    if not module.words.isdisjoint({"automatic_optimization", "manual_backward"}):
        return False
    given = [value for value in flow.returned if value.kind is not Kind.NONE]
    path = path_of(store.value_node)
    put = (flow.final.get(path) if path is not None else None) or store.value
    return bool(given) and all(_is_same(put, value) for value in given) and not _is_written(module, put)


def _is_same(value: Value, other: Value) -> bool:
    if value.kind is Kind.CONTAINER:
        return len(value.boxes) == 1 and value.boxes == other.boxes
    return value.kind in (Kind.UNKNOWN, Kind.TENSOR) and bool(value.idents) and value.idents == other.idents


def _is_written(module: Module, value: Value) -> bool:
    """`log["loss"] = log["loss"].detach()`, `log.update(...)`: it may hold something else by then."""
    changing = known.EMPTYING_METHODS | {"update", "detach_", "apply", "setdefault"}
    return any(
        use.how == "written" or (use.how == "method" and use.detail in changing)
        for ident in value.idents
        for use in module.uses_of(ident)
    )


def _differentiated_by_lightning(module: Module, flow: Flow, value: Value) -> frozenset[int]:
    if not value.boxes:
        return value.idents
    found: set[int] = set()
    for index in value.boxes:
        node = module.box(index).node
        if isinstance(node, cst.Dict):
            for element in node.elements:
                if isinstance(element, cst.DictElement) and _is_loss_key(element.key):
                    path = path_of(element.value)
                    known_value = flow.final.get(path) if path is not None else None
                    found |= known_value.idents if known_value is not None else frozenset()
    return frozenset(found)


def _is_loss_key(key: cst.BaseExpression) -> bool:
    return isinstance(key, cst.SimpleString) and key.evaluated_value == "loss"


def _is_certain(module: Module, owner: Scope, store: Store) -> bool:
    """All bases in view, and a tensor is stored."""
    bases = module.analysis.base_names(owner.qualname)
    if not all(is_known_base(base) or is_lightning(base) for base in bases):
        return False
    return store.value.kind in (Kind.TENSOR, Kind.CONTAINER) or store.value.carries_graph
