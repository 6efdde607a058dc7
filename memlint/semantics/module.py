"""What a rule asks: one file's meaning, without trees, names or loops to be walked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from functools import cached_property
from math import inf
from typing import TypeVar, cast

import libcst as cst

from memlint.semantics.analysis import Analysis
from memlint.semantics.definitions import Box
from memlint.semantics.entry_modes import decorators
from memlint.semantics.events import AttributeStore, Backward, Call, Loop, Store, Use
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge.frameworks import is_torch_code
from memlint.semantics.naming import EVALUATION_WORDS, words_of
from memlint.semantics.paths import head_of
from memlint.semantics.project import View
from memlint.semantics.questions import ModuleFacts, Question, answer
from memlint.semantics.scopes import Scope, walk
from memlint.semantics.switches import Switches
from memlint.semantics.values import Condition, Mode, Proof, Value

# `predict` alone may hold predictions; `val_loader`, `test_batches` hold data.
_DATA_WORDS = frozenset(
    """loader loaders dataloader dataloaders dl dls set sets dataset datasets ds data batch batches iter iterator
    iterable generator gen samples examples images queue""".split()
)
_TEST_FOLDERS = frozenset({"test", "tests", "testing", "unittests", "unit_tests"})

_T = TypeVar("_T")


class Module:
    """One file."""

    def __init__(
        self,
        path: str,
        tree: cst.Module,
        code: str,
        *,
        target_torch: tuple[int, int] | None = None,
        view: View | None = None,
    ) -> None:
        """`code` is the text that was parsed: printing the tree again takes as long as parsing it."""
        self.path = path
        self.code = code
        self.target_torch = target_torch
        """The lowest torch the code must run on; None: the current one."""
        self.tree = tree
        self.analysis = Analysis(tree, view)
        self._done: dict[Callable[[Module], object], object] = {}
        self._calls_of: dict[frozenset[str], list[Call]] = {}
        self._switches: dict[Scope, Switches] = {}
        self._mentions: dict[tuple[str, ...], bool] = {}

    def release(self) -> None:
        """Take the analysis apart: its objects refer to each other, and would wait for the garbage collector.

        Nothing can be asked afterwards.
        """
        self.analysis.release()
        self.__dict__.clear()

    def once(self, work: Callable[[Module], _T]) -> _T:
        """The result of the work on this file, done once."""
        if work not in self._done:
            self._done[work] = work(self)
        return cast(_T, self._done[work])

    # --- events, in source order within each scope ---

    @cached_property
    def flows(self) -> list[Flow]:
        return self.analysis.flows

    @cached_property
    def calls(self) -> list[Call]:
        return [call for flow in self.flows for call in flow.calls]

    @cached_property
    def stores(self) -> list[Store]:
        return [store for flow in self.flows for store in flow.stores]

    @cached_property
    def attribute_stores(self) -> list[AttributeStore]:
        return [store for flow in self.flows for store in flow.attribute_stores]

    @cached_property
    def backwards(self) -> list[Backward]:
        return [backward for flow in self.flows for backward in flow.backwards]

    def backwards_over(self, roots: Set[int]) -> list[Backward]:
        """The backward passes that reach one of these definitions."""
        by_root = self._backwards_by_root
        found = {index for root in by_root.keys() & roots for index in by_root[root]}
        return [self._backwards_in_order[index] for index in sorted(found)]

    def first_backward_over(self, roots: Set[int]) -> Backward | None:
        """The first of these."""
        by_root = self._backwards_by_root
        found = [by_root[root][0] for root in by_root.keys() & roots]
        return self._backwards_in_order[min(found)] if found else None

    @cached_property
    def _backwards_in_order(self) -> list[Backward]:
        return sorted(self.backwards, key=lambda backward: backward.order)

    @cached_property
    def _backwards_by_root(self) -> dict[int, list[int]]:
        """Definition -> the backward passes that reach it, by their places in the order."""
        by_root: dict[int, list[int]] = {}
        for index, backward in enumerate(self._backwards_in_order):
            for root in backward.differentiated.roots:
                by_root.setdefault(root, []).append(index)
        return by_root

    @cached_property
    def returning(self) -> dict[int, frozenset[str]]:
        """Definition or store -> the functions whose result may hold it."""
        return _inverted((flow.scope.qualname, flow.return_roots) for flow in self.flows)

    @cached_property
    def returning_boxes(self) -> dict[int, frozenset[str]]:
        """Container -> the functions that return it."""
        return _inverted((flow.scope.qualname, value.boxes) for flow in self.flows for value in flow.returned)

    @cached_property
    def loops(self) -> list[Loop]:
        return [loop for flow in self.flows for loop in flow.loops]

    @cached_property
    def withs(self) -> list[tuple[cst.With, cst.WithItem, Value]]:
        return [item for flow in self.flows for item in flow.withs]

    def is_built_elsewhere(self, root: int) -> bool:
        """Whether it is the call of an imported class, `LossBundle(...)`, which may have a `backward` of its own."""
        if root not in self.analysis.imported:
            return False
        name = self.analysis.imported[root]
        return name.replace(":", ".").rpartition(".")[2][:1].isupper()

    @property
    def is_test_file(self) -> bool:
        """Named as pytest wants it, or in a folder of tests, and with tests in it."""
        view = self.analysis.view
        *folders, name = (self.path if view is None else view.file).replace("\\", "/").split("/")
        is_named_so = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
        if not is_named_so and _TEST_FOLDERS.isdisjoint(folders):
            return False
        if not self.words.isdisjoint({"pytest", "unittest"}):
            return True
        # `test/run.py` may well hold a `test_epoch`.
        named = (scope.name.startswith(("test_", "Test")) and is_named_so for scope in self.scopes)
        return any(named) or any(scope.name.endswith("TestCase") for scope in self.scopes)

    @property
    def scopes(self) -> list[Scope]:
        return self.analysis.scopes

    @cached_property
    def words(self) -> frozenset[str]:
        """Every identifier and attribute name in the file."""
        return frozenset(word for scope in self.scopes for word in scope.words)

    @cached_property
    def uses_torch(self) -> bool:
        """Whether the file's code works with torch: it names torch, or calls what only its objects have."""
        return is_torch_code(self.words)

    @cached_property
    def _calls_by_node(self) -> dict[int, Call]:
        return {id(call.node): call for call in self.calls}

    def call_at(self, node: cst.CSTNode) -> Call | None:
        """What is known of this call expression."""
        return self._calls_by_node.get(id(node))

    def calls_of(self, table: frozenset[str]) -> list[Call]:
        """The calls whose callee can only be one of these qualified names."""
        if table not in self._calls_of:
            self._calls_of[table] = self._calls_of_any(table)
        return self._calls_of[table]

    def _calls_of_any(self, table: frozenset[str]) -> list[Call]:
        if len(table) == 1:
            return self._calls_by_quals.get(table, [])
        return [call for call in self.calls if call.names(table)]

    @cached_property
    def _calls_by_quals(self) -> dict[frozenset[str], list[Call]]:
        by_quals: dict[frozenset[str], list[Call]] = {}
        for call in self.calls:
            by_quals.setdefault(call.callee.quals, []).append(call)
        return by_quals

    def calls_in(self, scope: Scope) -> list[Call]:
        flow = self.flow_of(scope)
        return flow.calls if flow is not None else []

    def flow_of(self, scope: Scope) -> Flow | None:
        return self.analysis.flow(scope)

    def grad_mode(self, call: Call) -> Mode:
        """Grad mode at the call; UNKNOWN also where it is that in which an unknown framework runs the function."""
        flow = self.flow_of(call.scope) if call.mode is Mode.ENTRY else None
        return call.mode if flow is None else flow.entry

    def uses_of(self, root: int) -> list[Use]:
        """Every recorded use of a definition, in the order in which the code is read."""
        return self.analysis.uses.get(root, [])

    def box(self, index: int) -> Box:
        return self.analysis.boxes[index]

    # --- what holds ---

    def questions(self, conditions: Iterable[Condition]) -> frozenset[Question] | None:
        """The conditions with all that this file can decide decided: what is left to ask, None where one is false."""
        left: set[Question] = set()
        for condition in self.analysis.basis(conditions):
            if isinstance(condition, Proof):
                return None
            left.add(condition)
        return frozenset(left)

    def answer(self, question: Question) -> bool:
        """Whether the file, and what the project says of its functions, prove a yes."""
        return answer(question, self.facts, self.analysis.view)

    @cached_property
    def facts(self) -> ModuleFacts:
        return self.analysis.facts()

    # --- words for messages ---

    def text(self, node: cst.CSTNode, limit: int = 60) -> str:
        """The node's code on one line, cut to the limit."""
        code = " ".join(self.tree.code_for_node(node).split())
        return code if len(code) <= limit else code[: limit - 3] + "..."

    def graph_sources(self, value: Value) -> list[cst.Call]:
        """The module calls in this file whose graph the value holds, in source order of their reading."""
        nodes = (self.analysis.roots[root] for root in sorted(value.roots))
        return [root.node for root in nodes if root.is_forward and isinstance(root.node, cst.Call)]

    def definitions(self, value: Value) -> list[cst.CSTNode]:
        """The expressions that may have made exactly this value."""
        return [self.analysis.roots[root].node for root in sorted(value.idents)]

    def is_compiled(self, scope: Scope) -> bool:
        """Whether a decorator of torch (`torch.jit.script`, `torch.compile`) turns the function into something else."""
        return any(name.startswith("torch.") for name in decorators(self.analysis, scope))

    def mentions(self, texts: tuple[str, ...]) -> bool:
        """Whether the file's code contains one of the texts: searched for once, however many calls ask."""
        if texts not in self._mentions:
            self._mentions[texts] = any(text in self.code for text in texts)
        return self._mentions[texts]

    def torch_name(self, name: str) -> tuple[str, bool]:
        """How the file spells `torch.<name>`, and whether `import torch` must be added for it."""
        for bound, value in self.analysis.top_level_names.items():
            if value.quals == {"torch"}:
                return f"{bound}.{name}", False
            if value.quals == {f"torch.{name}"}:
                return bound, False
        return f"torch.{name}", True

    def surely_a_module(self, owner: Scope) -> bool:
        """Whether a class derives from a module class of torch (or of a known library), in view."""
        bases = self.analysis.base_names(owner.qualname)
        return any(base.startswith("torch.nn.") or base in known.MODULE_BASES for base in bases)

    # --- evaluation ---

    def evaluation_evidence(self, scope: Scope, loop: Loop | None) -> str | None:
        """What says that this loop (or function) evaluates rather than trains; None where nothing does.

        `.eval()` was called before and `.train()` not after it, or the loop's iterable or the function is named so.
        """
        if loop is not None and loop.is_training_loop:
            return None
        model = self.put_into_eval(scope, loop)
        if model is not None:
            return f"`{model}.eval()` was called"
        return self.named_for_evaluation(scope, loop)

    def named_for_evaluation(self, scope: Scope, loop: Loop | None) -> str | None:
        """What is named so that it says evaluation: the loop's iterable or the function."""
        for item in loop.outer() if loop is not None else ():
            named = self._named_for_evaluation(item.iterable)
            if named is not None:
                return f"it loops over `{named}`"
        owner = scope.enclosing_class()
        if owner is not None and self.analysis.is_module_class(owner.qualname):
            return None  # a model's own `predict` also runs in training
        function: Scope | None = scope
        while function is not None and function.is_function:
            if words_of(function.name) & EVALUATION_WORDS:
                return f"it stands in `{function.name}`"
            function = function.parent
        return None

    def put_into_eval(
        self, scope: Scope, loop: Loop | None, model: str | None = None, before: Call | None = None
    ) -> str | None:
        """A path on which `.eval()` was the last word before the loop ends (anywhere in the function without one).

        With `model`, one that covers it: `self.eval()` puts `self.net` into eval mode too. With `before`, the last
        word before that call.
        """
        switches = self._switches_of(scope)
        until = before.order if before is not None and before.scope is scope else inf
        if loop is not None:
            until = min(until, self._last_in_loop.get(id(loop.node), inf) + 1)
        if model is None:
            return next((path for path in switches.begun(until) if switches.is_in_eval(path, until)), None)
        known = switches.most_specific(model, until)
        if known is None and scope.parent is not None and head_of(model) not in scope.bound:
            return self.put_into_eval(scope.parent, None, model)
        return known if known is not None and switches.is_in_eval(known, until) else None

    def _switches_of(self, scope: Scope) -> Switches:
        if scope not in self._switches:
            self._switches[scope] = Switches(self.calls_in(scope))
        return self._switches[scope]

    @cached_property
    def _last_in_loop(self) -> dict[int, int]:
        """The order of the last call in each loop."""
        last: dict[int, int] = {}
        for call in self.calls:
            for loop in call.loop.outer() if call.loop is not None else ():
                last[id(loop.node)] = max(call.order, last.get(id(loop.node), 0))
        return last

    def _named_for_evaluation(self, iterable: cst.BaseExpression | None) -> str | None:
        if iterable is None:
            return None
        for node in walk(iterable):
            if isinstance(node, cst.Name):
                words = words_of(node.value)
                if words & EVALUATION_WORDS and words & _DATA_WORDS:
                    return node.value
            if isinstance(node, cst.SimpleString) and words_of(node.raw_value) & EVALUATION_WORDS:
                return node.raw_value
        return None


def _inverted(pairs: Iterable[tuple[str, Iterable[int]]]) -> dict[int, frozenset[str]]:
    inverted: dict[int, set[str]] = {}
    for name, numbers in pairs:
        for number in numbers:
            inverted.setdefault(number, set()).add(name)
    return {number: frozenset(names) for number, names in inverted.items()}
