"""Rewrite the fixtures in ways that change nothing, and see which findings come or go.

    python benchmarks/rewritten.py [--forms FORM ...] [--cases WORD] [--show]

A reviewer does not care whether an argument stands in a variable, or whether a loop has a progress bar. Where memlint
does, one of two texts that do the same is missed, or wrongly flagged. The forms are listed in FORMS. Some differences
are right: what a loop that no progress bar would stand around means to the code around it, a name that a rule goes by.
They are for reading (`--show` prints the rewritten code).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import libcst as cst
import libcst.matchers as m

from memlint.linting.lint import lint
from memlint.testing.cases import Case, read_cases

_Node = TypeVar("_Node", bound=cst.CSTNode)
_Lines = cst.FlattenSentinel[cst.BaseStatement]


class _Rewriter(cst.CSTTransformer):
    needs = ""
    """An import that the new code needs."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def changed(self, node: _Node) -> _Node:
        self.changes += 1
        return node


def _line(text: str) -> cst.SimpleStatementLine | cst.BaseCompoundStatement:
    return cst.parse_statement(f"{text}\n")


def _set(target: cst.BaseAssignTargetExpression, value: cst.BaseExpression) -> cst.SimpleStatementLine:
    return cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(target)], value)])


def _call(name: str, given: cst.BaseExpression) -> cst.Call:
    return cst.Call(cst.Name(name), [cst.Arg(given)])


def _in_parentheses(node: cst.BaseExpression) -> cst.BaseExpression:
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _with_first(loop: cst.For, line: cst.BaseStatement) -> cst.For:
    return loop.with_changes(body=loop.body.with_changes(body=[line, *loop.body.body]))


def _is_plain(loop: cst.For) -> bool:
    return loop.asynchronous is None and isinstance(loop.body, cst.IndentedBlock)


class _ProgressBar(_Rewriter):
    """`for x in tqdm(batches):`"""

    needs = "from tqdm import tqdm"

    def leave_For(self, original_node: cst.For, updated_node: cst.For) -> cst.For:  # noqa: ARG002, N802 - LibCST's name
        after = cst.SimpleWhitespace(" ")
        return self.changed(updated_node.with_changes(iter=_call("tqdm", updated_node.iter), whitespace_after_in=after))


class _Counted(_Rewriter):
    """`for number, (x, y) in enumerate(batches):`"""

    def leave_For(self, original_node: cst.For, updated_node: cst.For) -> cst.For:  # noqa: ARG002, N802
        target = updated_node.target
        if m.matches(updated_node.iter, m.Call(m.Name("enumerate"))):
            return updated_node
        item = _in_parentheses(target) if isinstance(target, cst.Tuple) else target
        pair = cst.Tuple([cst.Element(cst.Name("number_")), cst.Element(item)], lpar=[], rpar=[])
        counted = updated_node.with_changes(target=pair, iter=_call("enumerate", updated_node.iter))
        space = cst.SimpleWhitespace(" ")
        return self.changed(counted.with_changes(whitespace_after_in=space, whitespace_after_for=space))


class _Unpacked(_Rewriter):
    """`for batch in batches:`, and `x, y = batch` as the first line."""

    def leave_For(self, original_node: cst.For, updated_node: cst.For) -> cst.For:  # noqa: ARG002, N802
        source = updated_node.iter
        pairs = m.Call(m.Name("enumerate") | m.Name("zip") | m.Attribute(attr=m.Name("items")))
        if not isinstance(updated_node.target, cst.Tuple) or not _is_plain(updated_node) or m.matches(source, pairs):
            return updated_node
        first = _set(updated_node.target, cst.Name("batch_"))
        return self.changed(_with_first(updated_node.with_changes(target=cst.Name("batch_")), first))


class _Drawn(_Rewriter):
    """`for number in range(len(loader)):`, and `x, y = next(batches)` as the first line."""

    def leave_For(self, original_node: cst.For, updated_node: cst.For) -> cst.For | _Lines:  # noqa: ARG002, N802
        source = updated_node.iter
        if not isinstance(source, cst.Name) or "load" not in source.value or updated_node.orelse is not None:
            return updated_node
        if not _is_plain(updated_node):
            return updated_node
        before = _line(f"drawn_ = iter({source.value})")
        first = _set(updated_node.target, cst.parse_expression("next(drawn_)"))
        turns = cst.parse_expression(f"range(len({source.value}))")
        loop = _with_first(updated_node.with_changes(target=cst.Name("number_"), iter=turns), first)
        return cst.FlattenSentinel([before, self.changed(loop)])


class _Logged(_Rewriter):
    """`logging.info("step")` as the first line of each loop."""

    needs = "import logging"

    def leave_For(self, original_node: cst.For, updated_node: cst.For) -> cst.For:  # noqa: ARG002, N802
        if not _is_plain(updated_node):
            return updated_node
        return self.changed(_with_first(updated_node, _line('logging.info("step")')))


class _Autocast(_Rewriter):
    """`with torch.autocast("cuda"):` around the body of a loop in which nothing trains."""

    needs = "import torch"

    def leave_For(self, original_node: cst.For, updated_node: cst.For) -> cst.For:  # noqa: ARG002, N802
        trains = m.findall(updated_node.body, m.Attribute(attr=m.Name("backward") | m.Name("step")))
        if trains or not _is_plain(updated_node):
            return updated_node
        around = _line('with torch.autocast("cuda"):\n    pass').with_changes(body=updated_node.body)
        return self.changed(updated_node.with_changes(body=cst.IndentedBlock([around])))


class _Guarded(_Rewriter):
    """`try: ... finally: print("done")` around the body of each function."""

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:  # noqa: ARG002, N802
        if not isinstance(updated_node.body, cst.IndentedBlock) or m.findall(updated_node.body, m.Yield()):
            return updated_node
        lines = list(updated_node.body.body)
        doc = 1 if m.matches(lines[0], m.SimpleStatementLine([m.Expr(m.SimpleString())])) else 0
        if not lines[doc:]:
            return updated_node
        around = _line('try:\n    pass\nfinally:\n    print("done")')
        body = [*lines[:doc], around.with_changes(body=cst.IndentedBlock(lines[doc:]))]
        return self.changed(updated_node.with_changes(body=updated_node.body.with_changes(body=body)))


class _ReturnedByName(_Rewriter):
    """`result = model(x)`, `return result`"""

    def leave_SimpleStatementLine(  # noqa: N802
        self,
        original_node: cst.SimpleStatementLine,  # noqa: ARG002
        updated_node: cst.SimpleStatementLine,
    ) -> cst.SimpleStatementLine | _Lines:
        only = updated_node.body[0]
        if len(updated_node.body) > 1 or not isinstance(only, cst.Return):
            return updated_node
        if only.value is None or isinstance(only.value, cst.Name):
            return updated_node
        back = cst.SimpleStatementLine([cst.Return(cst.Name("result_"))])
        return cst.FlattenSentinel([_set(cst.Name("result_"), only.value), self.changed(back)])


class _ArgumentsByName(_Rewriter):
    """`value = model(x)`, `loss = criterion(value, y)`, where nothing is read in another order by that."""

    def leave_SimpleStatementLine(  # noqa: N802
        self,
        original_node: cst.SimpleStatementLine,  # noqa: ARG002
        updated_node: cst.SimpleStatementLine,
    ) -> cst.SimpleStatementLine | _Lines:
        only = updated_node.body[0]
        if len(updated_node.body) > 1 or not isinstance(only, (cst.Assign, cst.AugAssign, cst.Expr, cst.Return)):
            return updated_node
        call = only.value
        plain = (cst.Call, cst.Name, cst.SimpleString, cst.Integer, cst.Attribute)
        if not isinstance(call, cst.Call) or any(arg.star or not isinstance(arg.value, plain) for arg in call.args):
            return updated_node
        if m.findall(call.func, m.Call()) or not any(isinstance(arg.value, cst.Call) for arg in call.args):
            return updated_node
        before: list[cst.SimpleStatementLine] = []
        given: list[cst.Arg] = []
        for arg in call.args:
            name = cst.Name(f"value{self.changes}_{len(before)}")
            before += [_set(name, arg.value)] if isinstance(arg.value, cst.Call) else []
            given.append(arg.with_changes(value=name) if isinstance(arg.value, cst.Call) else arg)
        rest = self.changed(only.with_changes(value=call.with_changes(args=given)))
        return cst.FlattenSentinel([*before, updated_node.with_changes(leading_lines=[], body=[rest])])


class _Added(_Rewriter):
    """`total = total + loss` for `total += loss`."""

    def leave_AugAssign(self, original_node: cst.AugAssign, updated_node: cst.AugAssign) -> cst.AugAssign | cst.Assign:  # noqa: ARG002, N802
        target, value = updated_node.target, updated_node.value
        if not isinstance(target, cst.Name) or not isinstance(updated_node.operator, cst.AddAssign):
            return updated_node
        is_one = isinstance(value, (cst.Name, cst.Call, cst.Attribute, cst.Subscript))
        total = cst.BinaryOperation(target, cst.Add(), value if is_one else _in_parentheses(value))
        return self.changed(cst.Assign([cst.AssignTarget(target)], total))


class _Renamed(_Rewriter):
    """A variable by another name that does as well."""

    def __init__(self, old: frozenset[str], new: str) -> None:
        super().__init__()
        self._old = old
        self._new = new
        self._names: set[str] = set()

    def visit_Module(self, node: cst.Module) -> None:  # noqa: N802
        self._names = {name.value for name in m.findall(node, m.Name()) if isinstance(name, cst.Name)}

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:  # noqa: ARG002, N802
        if updated_node.value not in self._old or self._new in self._names or len(self._names & self._old) > 1:
            return updated_node
        return self.changed(updated_node.with_changes(value=self._new))

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:  # noqa: N802
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:  # noqa: N802
        return updated_node.with_changes(keyword=original_node.keyword)


_BATCHES = frozenset({"x", "batch", "inputs", "images", "image", "img", "xb", "features", "sample"})
FORMS: dict[str, Callable[[], _Rewriter]] = {
    "progress-bar": _ProgressBar,
    "counted": _Counted,
    "unpacked": _Unpacked,
    "drawn": _Drawn,
    "logged": _Logged,
    "autocast": _Autocast,
    "guarded": _Guarded,
    "returned-by-name": _ReturnedByName,
    "arguments-by-name": _ArgumentsByName,
    "added": _Added,
    "batch-is-data": lambda: _Renamed(_BATCHES, "data"),
    "model-is-net": lambda: _Renamed(frozenset({"model"}), "net"),
    "net-is-model": lambda: _Renamed(frozenset({"net", "network"}), "model"),
}


def rewritten(code: str, form: str) -> str | None:
    """The code in that form; None where there is nothing to rewrite."""
    tree, rewriter = cst.parse_module(code), FORMS[form]()
    new = tree.visit(rewriter)
    if not rewriter.changes:
        return None
    needed = rewriter.needs
    if not needed or f"{needed}\n" in code:
        return new.code
    at = next((i for i, line in enumerate(new.body) if not _stands_first(line)), len(new.body))
    return new.with_changes(body=[*new.body[:at], _line(needed), *new.body[at:]]).code


def _stands_first(line: cst.CSTNode) -> bool:
    future = m.SimpleStatementLine([m.ImportFrom(module=m.Name("__future__"))])
    return m.matches(line, m.SimpleStatementLine([m.Expr(m.SimpleString())]) | future)


def codes_of(case: Case, code: str) -> Counter[str]:
    """How often each rule is found."""
    return Counter(finding.code for finding in lint("case.py", code.encode(), case.policy).findings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--cases", default="", metavar="WORD", help="only those with this in their names")
    parser.add_argument("--show", action="store_true", help="print the rewritten code of each difference")
    given = parser.parse_args()
    cases = [case for case in _cases() if given.cases in case.id]
    print("| form | cases | findings | lost | new |\n| --- | ---: | ---: | ---: | ---: |")
    for row in [_row(cases, form, show=given.show) for form in given.forms]:
        print(row)


def _cases() -> Sequence[Case]:
    fixtures = Path(__file__).parents[1] / "fixtures"
    return [case for path in sorted(fixtures.glob("*/*.md")) for case in read_cases(path)]


def _row(cases: Sequence[Case], form: str, *, show: bool) -> str:
    seen: Counter[str] = Counter()
    for case in cases:
        new = rewritten(case.code, form)
        if new is None:
            continue
        before, after = codes_of(case, case.code), codes_of(case, new)
        lost, more = before - after, after - before
        seen.update(cases=1, findings=before.total(), lost=lost.total(), new=more.total())
        if lost or more:
            print(f"{form}: {case.id}: lost {dict(lost)}, new {dict(more)}", flush=True)
            print(new if show else "", end="")
    return f"| {form} | {seen['cases']:,} | {seen['findings']:,} | {seen['lost']} | {seen['new']} |"


if __name__ == "__main__":
    main()
