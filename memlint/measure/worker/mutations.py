"""The statements that put something into a container, read from the source: which line appends to `outputs`?

A container that has grown does not know who filled it, and watching every line would keep tensors alive longer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from memlint.measure.recording import Place

_ADDING = frozenset("append appendleft add extend extendleft insert setdefault update put put_nowait push".split())

_REGISTERING = frozenset({"register_buffer", "register_parameter", "register_module", "add_module"})


@dataclass(frozen=True)
class Mutation:
    """`chain` is the container in words of the code: ("self", "outputs") for `self.outputs["a"].append(x)`."""

    chain: tuple[str, ...]
    function: str
    """The innermost function around it; empty at the top of a module."""
    place: Place


class Source:
    """What one file's statements put where."""

    def __init__(self, path: str, text: str) -> None:
        self.mutations: list[Mutation] = []
        self.hooks: list[Place] = []
        """Where hooks are registered."""
        self.passes: list[Mutation] = []
        """Where a container is handed to a call."""
        self.attributes: list[Mutation] = []
        """Where an attribute is set."""
        self.comprehensions: list[tuple[int, int]] = []
        """First and last line of each."""
        self.path = path
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return
        self._walk(tree, "")

    def _walk(self, node: ast.AST, function: str, scope: str = "<module>") -> None:
        """`scope` is what Python calls the code that runs: a lambda is one, and its names are those around it."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._walk(child, child.name, child.name)
                continue
            self._note(child, function, scope)
            self._walk(child, function, "<lambda>" if isinstance(child, ast.Lambda) else scope)

    def _note(self, node: ast.AST, function: str, scope: str) -> None:
        place = Place(self.path, getattr(node, "lineno", 0), scope)
        if isinstance(node, ast.Call):
            self._note_call(node, function, place)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp)):
            self.comprehensions.append((node.lineno, node.end_lineno or node.lineno))
        elif isinstance(node, ast.AugAssign):
            self._add(self.mutations, node.target, function, place)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript):
                    self._add(self.mutations, target.value, function, place)
                elif isinstance(target, ast.Attribute):
                    self._add(self.attributes, target, function, place)
                if _is_made_of_itself(target, node.value):
                    self._add(self.mutations, target, function, place)

    def _note_call(self, node: ast.Call, function: str, place: Place) -> None:
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            if isinstance(argument, (ast.Name, ast.Attribute)):
                self._add(self.passes, argument, function, place)
        if isinstance(node.func, ast.Name) and node.func.id == "setattr" and node.args:
            self._add(self.mutations, node.args[0], function, place)
        if not isinstance(node.func, ast.Attribute):
            return
        if node.func.attr in _ADDING or node.func.attr in _REGISTERING:
            self._add(self.mutations, node.func.value, function, place)
        elif node.func.attr.startswith("register_") and "hook" in node.func.attr:
            self.hooks.append(place)

    @staticmethod
    def _add(to: list[Mutation], target: ast.AST, function: str, place: Place) -> None:
        chain = _chain(target)
        if chain:
            to.append(Mutation(chain, function, place))


def _is_made_of_itself(target: ast.expr, value: ast.expr) -> bool:
    """`history = history + [x]`, `chain = (x, chain)`, `seen = torch.cat([seen, x])`."""
    chain = _chain(target)
    return any(_chain(part) == chain for part in ast.walk(value) if isinstance(part, (ast.Name, ast.Attribute)))


def _chain(node: ast.AST) -> tuple[str, ...]:
    """Names and attributes, without what is between brackets: `self.outputs[k]` is ("self", "outputs")."""
    return tuple(reversed(list(_parts(node))))


def _parts(node: ast.AST) -> Iterator[str]:
    while True:
        if isinstance(node, ast.Name):
            yield node.id
            return
        if isinstance(node, ast.Attribute):
            if node.attr not in _ADDING and node.attr != "get":
                yield node.attr
            node = node.value
        elif isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return
