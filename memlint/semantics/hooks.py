"""Hooks that are registered again and again on an object that lives on, and whose handle nobody keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import Call, Loop
from memlint.semantics.forwards import may_build
from memlint.semantics.knowledge import hooks as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.reads import is_read
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, nodes_of, parameters, path_of, target_names, walk
from memlint.semantics.values import Kind

_HOOKS = known.MODULE_HOOKS | known.TENSOR_HOOKS
_MAX_STEPS = 6
_NOBODY: frozenset[str] = frozenset()
_ONCE = frozenset({"__init__", "__post_init__", "setup", "__enter__", "__new__"})


@dataclass(frozen=True, eq=False)
class LostHook:
    """A hook that each round adds once more."""

    call: Call
    loop: Loop | None
    """The loop that registers it in every iteration."""
    repeats: cst.CSTNode
    """What repeats it: the loop, the function that also runs the model, or a call of the function in a loop."""
    in_forward: bool
    certain: bool
    is_left_behind: bool = False
    """By the constructor of an object that has no way to remove it."""


def lost_hooks(module: Module) -> Iterator[LostHook]:
    if module.words.isdisjoint(_HOOKS) or module.words & known.HOOK_TABLES:
        return
    for call in module.calls:
        if call.method in _HOOKS and _stays(call) and (handle_is_lost(call) or _is_lost_by_callers(module, call)):
            found = _repeated(module, call)
            if found is not None:
                yield found


def _stays(call: Call) -> bool:
    """A hook of a module or a parameter: that of another tensor dies with its graph."""
    if call.method in known.MODULE_HOOKS:
        return bool(call.positional or call.keywords)
    return call.receiver is not None and call.receiver.cls == "torch.nn.Parameter"


def handle_is_lost(call: Call) -> bool:
    """Whether nobody keeps what the registration returns."""
    if call.is_statement:
        return True
    if _is_in_forgotten_list(call):
        return True
    statement = call.statement
    if not isinstance(statement, cst.Assign) or statement.value is not call.node or len(statement.targets) != 1:
        return False
    target = statement.targets[0].target
    if not isinstance(target, cst.Name) or not call.scope.is_function or target.value in call.scope.nonlocal_names:
        return False
    return not is_read(call.scope.node, target.value)


def _is_lost_by_callers(module: Module, call: Call) -> bool:
    """`return net.register_forward_hook(f)`, and whoever calls the function in this file keeps nothing of it."""
    sites = module.calls_of(frozenset({call.scope.qualname})) if _is_returned(call) else []
    return bool(sites) and all(handle_is_lost(site) for site in sites)


def _is_returned(call: Call) -> bool:
    """The handle itself is what the function returns, and all that it does with it."""
    statement = call.statement
    if isinstance(statement, cst.Return):
        return statement.value is call.node
    if not isinstance(statement, cst.Assign) or statement.value is not call.node or len(statement.targets) != 1:
        return False
    name = path_of(statement.targets[0].target)
    returned = [node.value for node in nodes_of(call.scope.node, cst.Return) if node.value is not None]
    reads = _named_in(call.scope.node)[name] - 1
    return reads == len(returned) == sum(path_of(value) == name for value in returned)


@lru_cache(maxsize=NODES_REMEMBERED)
def _named_in(function: cst.CSTNode) -> Counter[str | None]:
    """How often each name stands in a function."""
    return Counter(node.value for node in nodes_of(function, cst.Name))


def _is_in_forgotten_list(call: Call) -> bool:
    """`handles.append(net.register_forward_hook(f))`, `handles = [...]`: a local list that is filled and never read."""
    statement = call.statement
    name: str | None = None
    if isinstance(statement, cst.Expr) and isinstance(statement.value, cst.Call):
        func, arguments = statement.value.func, statement.value.args
        is_append = isinstance(func, cst.Attribute) and func.attr.value == "append" and len(arguments) == 1
        if is_append and arguments[0].value is call.node and isinstance(func, cst.Attribute):
            name = path_of(func.value)
    elif isinstance(statement, cst.Assign) and len(statement.targets) == 1:
        inner = statement.value
        elements = [element.value for element in inner.elements] if isinstance(inner, (cst.List, cst.Tuple)) else []
        is_listed = any(element is call.node for element in elements)
        if is_listed or (isinstance(inner, cst.ListComp) and inner.elt is call.node):
            name = path_of(statement.targets[0].target)
    if name is None or "." in name or not call.scope.is_function or name in call.scope.nonlocal_names:
        return False
    if name not in call.scope.bound or name in _parameter_names(call.scope):
        return False
    return name not in _more_than_filled(call.scope.node)


@lru_cache(maxsize=NODES_REMEMBERED)
def _more_than_filled(function: cst.CSTNode) -> frozenset[str]:
    """The names that do not only stand where something is assigned to them, or appended."""
    filling = {
        id(node.func.value)
        for node in nodes_of(function, cst.Call)
        if isinstance(node.func, cst.Attribute) and node.func.attr.value == "append"
    }
    targets = {
        id(inner)
        for node in nodes_of(function, cst.Assign)
        if not isinstance(node.value, cst.Name)
        for target in node.targets
        for inner in walk(target.target)
    }
    no_reads = filling | targets
    return frozenset(node.value for node in nodes_of(function, cst.Name) if id(node) not in no_reads)


def _repeated(module: Module, call: Call) -> LostHook | None:
    scope = call.scope
    assert call.receiver_node is not None
    if _is_guarded(call, _picked_by_recursion(module, scope)):
        return _left_by_explainer(module, call)  # once for each object, and there are many
    loop = _repeating_loop(module, call)
    if loop is not None:
        is_batch = loop.is_batch_loop or loop.has_forward
        return LostHook(call, loop, loop.node, False, is_batch)
    owners = _owners(module, scope, call.receiver_node)
    if not scope.is_function or scope.name in _ONCE or not owners:
        return _constructed_in_loop(module, call) or _left_by_explainer(module, call)
    if _is_forward(module, scope):
        return LostHook(call, None, scope.node, True, True)
    site = _called_in_loop(module, scope)
    if site is not None:
        return LostHook(call, site.loop, site.node, False, True)
    run = _run_of(module, call, owners) if call.method in known.MODULE_HOOKS else None
    if run is None:
        run = _run_around(module, call) if call.method in known.MODULE_HOOKS else None
    if run is None:
        return _left_by_explainer(module, call)
    return LostHook(call, None, run.node, False, False)


def _is_forward(module: Module, scope: Scope) -> bool:
    owner = scope.parent
    return (
        scope.name == "forward"
        and owner is not None
        and owner.is_class
        and module.analysis.is_module_class(owner.qualname)
    )


# --- conditions ---


def _picked_by_recursion(module: Module, scope: Scope) -> frozenset[str]:
    """In a function that descends through the modules by calling itself: what it is given, and their parts."""
    if not any(inner.scope is scope for inner in module.calls_of(frozenset({scope.qualname}))):
        return _NOBODY
    given = _parameter_names(scope)
    parts = {name for name, found in _sources(scope.node).items() if all(_whole(item) in given for item in found)}
    return frozenset(given | parts)


def _is_guarded(call: Call, picked: frozenset[str] = _NOBODY) -> bool:
    """Behind a condition that may hold but once. One that picks modules out of a loop over them is none."""
    path = path_to(call.scope.node, call.node)
    targets: set[str] = set(picked)
    for parent, child in pairwise(path):
        if isinstance(parent, cst.For):
            targets.update(target_names(parent.target))
        elif isinstance(parent, (cst.If, cst.IfExp)) and child is not parent.test:
            if not _asks_for_hooks(parent.test) and not any(
                isinstance(node, cst.Name) and node.value in targets for node in walk(parent.test)
            ):
                return True
        elif isinstance(parent, (cst.BooleanOperation, cst.ExceptHandler, cst.MatchCase)) or (
            isinstance(parent, cst.IndentedBlock) and id(child) not in _reached(parent)
        ):
            return True
    return False


@lru_cache(maxsize=NODES_REMEMBERED)
def _reached(block: cst.IndentedBlock) -> frozenset[int]:
    """The identities of the statements before which none leaves for good."""
    leaving = next((index for index, item in enumerate(block.body) if _leaves_for_good(item)), len(block.body))
    return frozenset(map(id, block.body[: leaving + 1]))


def _asks_for_hooks(test: cst.BaseExpression) -> bool:
    """`hasattr(layer, "register_full_backward_hook")`: the other branch registers another hook."""
    if not isinstance(test, cst.Call) or path_of(test.func) != "hasattr" or len(test.args) != 2:
        return False
    name = test.args[1].value
    return isinstance(name, cst.SimpleString) and name.evaluated_value in known.MODULE_HOOKS


def _leaves_for_good(statement: cst.CSTNode) -> bool:
    """`if self.hooked: return`, `if name in seen: continue`."""
    if not isinstance(statement, cst.If) or not any(
        isinstance(node, (cst.Return, cst.Continue)) for node in walk(statement)
    ):
        return False
    return any(isinstance(node, (cst.Attribute, cst.In, cst.NotIn)) for node in walk(statement.test))


# --- loops ---


def _repeating_loop(module: Module, call: Call) -> Loop | None:
    """The innermost loop that registers the hook on one and the same object in every iteration."""
    assert call.receiver_node is not None
    for loop in call.loop.outer() if call.loop is not None else ():
        if loop.is_comprehension or not isinstance(loop.node, (cst.For, cst.While)):
            continue
        changing = _bound_in(loop.node)
        if _makes_new(call.receiver_node) or _names_of(loop.node, call.receiver_node) & changing:
            continue
        targets = set(target_names(loop.node.target)) if isinstance(loop.node, cst.For) else set()
        hook = [argument.expression for argument in (*call.positional, *call.keywords.values())]
        own = any(isinstance(node, cst.Name) and node.value in targets for item in hook for node in walk(item))
        if loop.is_batch_loop or loop.has_forward or (not own and isinstance(loop.node, cst.For)):
            return loop
    return None


@lru_cache(maxsize=NODES_REMEMBERED)
def _bound_in(loop: cst.For | cst.While) -> set[str]:
    """The names that the loop binds anew."""
    bound: set[str] = set(target_names(loop.target)) if isinstance(loop, cst.For) else set()
    for node in walk(loop.body):
        if isinstance(node, (cst.AssignTarget, cst.For, cst.AnnAssign, cst.NamedExpr)):
            bound.update(target_names(node.target))
        elif isinstance(node, cst.AsName):
            bound.update(target_names(node.name))
    return bound


def _names_of(loop: cst.For | cst.While, expression: cst.BaseExpression) -> set[str]:
    """The names on which the expression depends: those of inner loops over an outer module stand for that module.

    What the loop makes itself, `net = nn.Linear(3, 3)`, it makes in each iteration: that name stands for itself.
    """
    inner = _sources(loop.body)
    names: set[str] = set()
    pending = [expression]
    while pending:
        for node in walk(pending.pop()):
            if isinstance(node, cst.Name) and node.value not in names:
                names.add(node.value)
                sources = inner.get(node.value, [])
                if len(sources) == 1 and not _makes_new(sources[0]):
                    names.discard(node.value)
                    pending.append(sources[0])
    return names


def _makes_new(expression: cst.BaseExpression) -> bool:
    """A call of something that is not known to give parts of what it is given: it may build, load or copy a module."""
    for node in walk(expression):
        if isinstance(node, cst.Call):
            name = node.func.attr.value if isinstance(node.func, cst.Attribute) else path_of(node.func) or ""
            table = known.PARTS if isinstance(node.func, cst.Attribute) else known.PICKING
            if name not in table and not _finds_a_part(name):
                return True
    return False


@lru_cache(maxsize=NODES_REMEMBERED)
def _sources(inside: cst.CSTNode) -> dict[str, list[cst.BaseExpression]]:
    """Name -> the expressions that it is bound to, or is an element of, in the code."""
    found: dict[str, list[cst.BaseExpression]] = {}
    for node in walk(inside):
        if isinstance(node, cst.Assign):
            for target in node.targets:
                for name in target_names(target.target):
                    found.setdefault(name, []).append(node.value)
        elif isinstance(node, (cst.For, cst.CompFor)):
            for name in target_names(node.target):
                found.setdefault(name, []).append(node.iter)
        elif isinstance(node, cst.AnnAssign) and node.value is not None:
            for name in target_names(node.target):
                found.setdefault(name, []).append(node.value)
        elif isinstance(node, cst.WithItem) and node.asname is not None:
            for name in target_names(node.asname.name):
                found.setdefault(name, []).append(node.item)
    return found


# --- does the object outlive the function? ---


def _owners(module: Module, scope: Scope, expression: cst.BaseExpression, steps: int = _MAX_STEPS) -> frozenset[str]:
    """The names of what the module is a part of, and which the caller, the object or the program holds.

    None of it where the function may have made the module itself.
    """
    head = _whole(expression)
    if head is None or not steps:
        return _NOBODY
    if head == "self":
        return frozenset({head})
    sources = _sources(scope.node).get(head, [])
    is_parameter = head in _parameter_names(scope)
    if not is_parameter and not sources:
        is_outer = head not in scope.bound and _is_outer_object(module, scope, head)
        return frozenset({head}) if is_outer else _NOBODY
    found = [_owners(module, scope, source, steps - 1) for source in sources if _whole(source) != head]
    if not all(found):
        return _NOBODY
    return frozenset({head} if is_parameter else ()).union(*found)


def _whole(expression: cst.BaseExpression) -> str | None:
    """`net` of `net.layers[3]`, of `dict(net.named_modules())[name]`, of `getattr(net, name)`; None: something new."""
    node: cst.BaseExpression = expression
    while not isinstance(node, cst.Name):
        if isinstance(node, (cst.Attribute, cst.Subscript)):
            node = node.value
        elif isinstance(node, (cst.List, cst.Tuple)) and len(node.elements) == 1:
            node = node.elements[0].value  # `[*net.named_modules()]`
        elif (
            isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in known.PARTS
        ):
            node = node.func.value
        elif isinstance(node, cst.Call) and node.args and _takes_part_of_first(path_of(node.func) or ""):
            node = node.args[0].value
        else:
            return None
    return node.value


def _takes_part_of_first(function: str) -> bool:
    return function in known.PARTS_OF_FIRST or _finds_a_part(function.rpartition(".")[2])


def _finds_a_part(function: str) -> bool:
    """`get_layer(net, name)`."""
    words = words_of(function)
    return bool(words & known.FINDING_WORDS and words & known.PART_WORDS)


def _parameter_names(scope: Scope) -> set[str]:
    if not isinstance(scope.node, (cst.FunctionDef, cst.Lambda)):
        return set()
    return {param.name.value for param in parameters(scope.node.params)}


def _is_outer_object(module: Module, scope: Scope, name: str) -> bool:
    value = module.analysis.outer_variable(scope, name)
    return value is None or value.kind is not Kind.CALLABLE


# --- is the function called again and again? ---


def _called_in_loop(module: Module, scope: Scope) -> Call | None:
    for call in module.calls_of(frozenset({scope.qualname})):
        if call.loop is not None and _same_arguments(call):
            return call
    return None


def _constructed_in_loop(module: Module, call: Call) -> LostHook | None:
    """`GradCAM(model, layer)` for every image: each object puts its hooks on the model."""
    scope = call.scope
    owner = scope.parent
    if scope.name != "__init__" or owner is None or not owner.is_class or call.receiver_node is None:
        return None
    head = _whole(call.receiver_node)
    given = head if head in _parameter_names(scope) and head != "self" else None
    if head == "self" and isinstance(call.receiver_node, cst.Attribute):
        given = _parameter_behind(module, scope, call.receiver_node)
    if given is None:
        return None
    for site in module.calls_of(frozenset({owner.qualname})):
        if site.loop is not None and _same_arguments(site):
            return LostHook(call, site.loop, site.node, False, True)
    return None


def _left_by_explainer(module: Module, call: Call) -> LostHook | None:
    """An object that watches activations and gradients of a model it was given, and has no way to let go of it.

    Such objects (Grad-CAM and the like) are made again and again, for another layer or image: the hooks of each stay on
    the model, keep the object alive and run at every forward pass. One that is made once, by a script, is none, and of
    optimizers (K-FAC) a training makes one.
    """
    owner = call.scope.parent
    if owner is None or not owner.is_class or module.analysis.is_module_class(owner.qualname):
        return None
    if any("optimizer" in words_of(name.rpartition(".")[2]) for name in _line_of(module, owner)):
        return None
    words = owner.words_within
    if words.isdisjoint(known.FORWARD_HOOKS) or words.isdisjoint(known.GRADIENT_HOOKS) or words & known.LETTING_GO:
        return None
    constructor = next((child for child in owner.children if child.name == "__init__" and child.is_function), None)
    if constructor is None or not _is_part_of_construction(module, call.scope, constructor):
        return None
    if not _is_given(module, call, constructor) or not _hook_is_of_object(module, call):
        return None
    sites = list(module.calls_of(frozenset({owner.qualname})))
    if any(_runs_once(module, site.scope) for site in sites) or _is_made_by_script(module, owner):
        return None
    return LostHook(call, None, constructor.node, False, False, True)


def _line_of(module: Module, owner: Scope) -> frozenset[str]:
    """The names of a class and of its bases."""
    return module.analysis.base_names(owner.qualname) | {owner.name}


def _is_made_by_script(module: Module, owner: Scope) -> bool:
    """Another file of the project makes the object, once."""
    view = module.analysis.view
    sites = view.sites(owner.qualname) if view is not None else ()
    return sites is None or any(site.caller.partition(":")[2] in ("", "main") for site in sites)


def _is_part_of_construction(module: Module, scope: Scope, constructor: Scope) -> bool:
    if scope is constructor:
        return True
    return any(call.callee.quals == {scope.qualname} for call in module.calls_in(constructor))


def _is_given(module: Module, call: Call, constructor: Scope) -> bool:
    """The hook's module is a part of what the constructor, or this method of it, was given."""
    assert call.receiver_node is not None
    given = _parameter_names(constructor) - {"self"}
    expressions = [call.receiver_node]
    sources = _sources(call.scope.node)
    for _ in range(_MAX_STEPS):
        following: list[cst.BaseExpression] = []
        for expression in expressions:
            head = _whole(expression)
            if head is None:
                continue
            if head == "self":
                path = (path_of(expression) or _self_path(expression) or "").split(".")
                return len(path) > 1 and _is_set_from(constructor, path[1], given)
            if head in _parameter_names(call.scope):
                return True
            following += [item for item in sources.get(head, []) if item is not expression]
        expressions = following
    return False


def _self_path(expression: cst.BaseExpression) -> str | None:
    """`self.model` in `self.model.layers[3]`, in `self.model.named_modules()`."""
    inner = (path_of(node) for node in walk(expression) if isinstance(node, cst.Attribute))
    return next((path for path in inner if path is not None and path.startswith("self.")), None)


def _is_set_from(constructor: Scope, attribute: str, given: set[str]) -> bool:
    for node in walk(constructor.node):
        if isinstance(node, cst.Assign) and path_of(node.targets[0].target) == f"self.{attribute}":
            head = _whole(node.value)
            return head in given
    return False


def _hook_is_of_object(module: Module, call: Call) -> bool:
    """`self.save`, a function of the constructor that uses `self`, what a method of the object returns."""
    given = [*call.positional, *call.keywords.values()]
    if not given:
        return False
    hook = given[0].expression
    if any(isinstance(node, cst.Name) and node.value == "self" for node in walk(hook)):
        return True
    name = hook.value if isinstance(hook, cst.Name) else None
    return any(child.name == name and "self" in child.words_within for child in call.scope.children)


def _runs_once(module: Module, scope: Scope) -> bool:
    """The script itself, its `main`, or a function that nobody but the script calls."""
    if not scope.is_function:
        return True
    if scope.enclosing_class() is not None:
        return False
    sites = module.facts.calls_of(scope.qualname)
    return scope.name == "main" or (bool(sites) and all(site.caller == ":" for site in sites))


def _parameter_behind(module: Module, scope: Scope, receiver: cst.Attribute) -> str | None:
    """`self.model.layer4` where `self.model = model` stands in the constructor."""
    path = path_of(receiver) or ""
    for node in nodes_of(scope.node, cst.Assign):
        if isinstance(node.value, (cst.Name, cst.Attribute)):
            target = path_of(node.targets[0].target)
            if target is not None and target != "self" and (path == target or path.startswith(target + ".")):
                head = _whole(node.value)
                return head if head in _parameter_names(scope) and head != "self" else None
    return None


def _same_arguments(call: Call) -> bool:
    """The model is the same in every iteration, and in each of them a batch is handled, or nothing else changes.

    `for name in layers: watch(model, name)` is a setup.
    """
    assert call.loop is not None
    loop = call.loop
    if loop.is_comprehension or not isinstance(loop.node, (cst.For, cst.While)) or call.unpacks:
        return False
    given = [argument.expression for argument in (*call.positional, *call.keywords.values())]
    if call.receiver_node is not None and call.receiver is not None and not call.receiver.quals:
        given.insert(0, call.receiver_node)
    changing = _bound_in(loop.node)
    depends = [bool(_names_of(loop.node, expression) & changing) for expression in given]
    if not depends:
        return True
    if _makes_new(given[0]):
        return False  # `watch(build(), x)`
    return not any(depends) or (not depends[0] and loop.is_batch_loop)


def _run_of(module: Module, call: Call, owners: frozenset[str]) -> Call | None:
    """The function also runs the model that it was given: each call of it adds a hook and uses all there are."""
    runs = module.once(_possible_runs)
    # In another loop: registered once, run for many batches.
    around = (None, *(call.loop.outer() if call.loop is not None else ()))
    first = (
        next((item for item in runs.get((call.scope, loop), ()) if _runs(call, item, owners)), None) for loop in around
    )
    return min((item for item in first if item is not None), key=lambda item: item.order, default=None)


def _runs(call: Call, other: Call, owners: frozenset[str]) -> bool:
    path = path_of(other.call.func) or ""
    if path.rpartition(".")[2] in known.RUNS:
        path = path.rpartition(".")[0]
    start, _, rest = path.partition(".")
    if start == "self" and "self" in owners and _runs_member(call, rest, other):
        return True
    given = _parameter_names(call.scope) - {"self", "cls"}
    return not rest and (start in owners - {"self"} or (other.is_forward and start in given and bool(owners & given)))


def _possible_runs(module: Module) -> dict[tuple[Scope, Loop | None], list[Call]]:
    """By function and innermost loop, the calls that are given something, without those that register hooks."""
    found: dict[tuple[Scope, Loop | None], list[Call]] = {}
    for call in module.calls:
        if (call.positional or call.keywords) and call.method not in _HOOKS:
            loop = next(iter(_loops_of(call)), None)
            found.setdefault((call.scope, loop), []).append(call)
    return found


def _run_around(module: Module, call: Call) -> Call | None:
    """The function is an inner one that is handed the model, `add_hooks(net)`, and the outer one runs the model."""
    scope, outer = call.scope, call.scope.parent
    assert call.receiver_node is not None
    if outer is None or not outer.is_function or _whole(call.receiver_node) not in _parameter_names(scope):
        return None
    given = _parameter_names(outer) - {"self", "cls"}
    handed: set[str] = set()
    for inner in module.calls_in(outer):
        if inner.callee.quals == {scope.qualname} and inner.loop is None:
            handed |= {
                path for path in (path_of(argument.expression) for argument in inner.positional) if path in given
            }
    for other in module.calls_in(outer):
        if path_of(other.call.func) in handed and (other.positional or other.keywords) and not _loops_of(other):
            return other
    return None


def _loops_of(call: Call) -> list[Loop]:
    return [loop for loop in (call.loop.outer() if call.loop is not None else ()) if not loop.is_comprehension]


def _runs_member(call: Call, rest: str, other: Call) -> bool:
    """`self.model(x)` after a hook on `self.model.layer4`."""
    path = _self_path(call.receiver_node) if call.receiver_node is not None else None
    member = (path or "self.").split(".")[1]
    head, _, method = rest.partition(".")
    runs = other.is_forward or (head == member and (not method or may_build(method.rpartition(".")[2])))
    return bool(rest) and runs and not other.callee.quals
