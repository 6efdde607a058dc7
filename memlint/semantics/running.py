"""Whether the code that is in view runs a class or a function at all, or leaves that to somebody out of view."""

from __future__ import annotations

import libcst as cst

from memlint.semantics.module import Module
from memlint.semantics.scopes import Scope, path_of, walk

_ASKING = frozenset({"super", "isinstance", "issubclass"})


def is_run_in_view(module: Module, scope: Scope) -> bool:
    """Whether a chain of calls leads from some file's top level to the class or function.

    A model's file alone, or a library without a training script, runs nothing: who reads what its models leave behind
    is out of view.
    """
    view = module.analysis.view
    own = {inner.qualname: inner for inner in module.scopes}
    pending, asked = [scope.qualname], set[str]()
    while pending:
        name = pending.pop()
        if name in asked:
            continue
        asked.add(name)
        file, _, inside = name.rpartition(":")
        if inside in ("", "main"):
            return True
        if name in own:
            if _is_handed_over(module, own[name]):
                return True
            pending += _callers(module, name)
            pending += _subclasses(module, name)
        around = inside.rpartition(".")[0]
        if around:
            pending.append(f"{file}:{around}")  # whoever makes the object may call its methods
        sites = view.sites(name) if view is not None else ()
        if sites is None:
            return True  # so many that they were not told apart
        for site in sites:
            if site.place is None:
                return True
            pending.append(view.local(site.caller) if view is not None else site.caller)
    return False


def is_called_in_view(module: Module, function: Scope) -> bool:
    """Whether anybody in view calls the function, or is handed it."""
    if _callers(module, function.qualname) or _is_handed_over(module, function):
        return True
    view = module.analysis.view
    sites = view.sites(function.qualname) if view is not None else ()
    return sites is None or bool(sites)


def _callers(module: Module, name: str) -> list[str]:
    sites = [call.scope.qualname for call in module.calls_of(frozenset({name}))]
    return sites + [site.caller for site in module.facts.calls_of(name)]


def _subclasses(module: Module, name: str) -> list[str]:
    analysis = module.analysis
    return [scope.qualname for scope in module.scopes if scope.is_class and name in analysis.base_names(scope.qualname)]


def _is_handed_over(module: Module, scope: Scope) -> bool:
    """`MODELS = {"net": Net}`, `partial(Net, 3)`: its name stands in the file other than called, or as a base."""
    parent = scope.parent
    if parent is None or parent.is_function:
        return False
    own: set[int] = set()  # what hands nothing over
    names: list[cst.CSTNode] = []
    for node in walk(module.tree):
        if isinstance(node, cst.Call):
            own.add(id(node.func))
            if path_of(node.func) in _ASKING:
                own.update(id(argument.value) for argument in node.args)
        elif isinstance(node, cst.Annotation):
            own.update(id(inner) for inner in walk(node))
        elif isinstance(node, cst.ClassDef):
            own.update(id(base.value) for base in node.bases)
            own.add(id(node.name))
        elif isinstance(node, cst.FunctionDef):
            own.add(id(node.name))
        elif isinstance(node, cst.Attribute):
            own.add(id(node.attr))
        if (isinstance(node, cst.Name) and node.value == scope.name and not parent.is_class) or (
            isinstance(node, cst.Attribute) and node.attr.value == scope.name and parent.is_class
        ):
            names.append(node)
    return any(id(node) not in own for node in names)
