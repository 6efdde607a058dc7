"""Undo one guard at a time in real code, and see whether memlint says so.

    python benchmarks/undone.py CORPUS [--kinds KIND ...] [--packages NAME ...] [--per-package N] [--missed]

CORPUS is the folder of `benchmarks/corpus.py download`. Where somebody wrote `with torch.no_grad():` or `loss.item()`,
the same code without it mostly wastes memory, in a form that nobody here thought of. A guard counts as missed when it
is taken away and no finding appears that was not there before. Not every guard is needed: some stand below another one,
or around numbers. So the share found is a lower bound, good for comparing two states of memlint; what it misses is for
reading (`--missed`).

Kinds: `no_grad` (a `with` around a model's call in a function that evaluates, by its name or by a loop over a loader),
`decorator` (the same on a whole function), `sum` and `append` (what `.item()`, `.detach()` or `.cpu()` is taken off
before it is added or appended), `map_location` of `torch.load`, `reentrant` (`use_reentrant=False`).
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules

# The words without which a file holds no guard of the kind.
KINDS = {
    "no_grad": r"\bwith .*\b(no_grad|inference_mode)\(",
    "decorator": r"@(torch\.)?(no_grad|inference_mode)\b",
    "sum": r"\+=.*\.(item|detach|cpu)\(",
    "append": r"append\(.*\.(item|detach|cpu)\(",
    "map_location": r"\bmap_location=",
    "reentrant": r"\buse_reentrant=False",
}
_GRAD_OFF = re.compile(r"(torch\.)?(no_grad|inference_mode)(\(\))?")
_TAKEN_OFF = frozenset({"item", "detach", "cpu", "numpy", "tolist"})
_MODEL = re.compile(
    r"(?<!\w)(?:self\.|[a-z]\w*\.)?\w*(?:model|net|encoder|generator|policy|actor|critic|decoder|classifier|learner"
    r"|backbone|vae|unet)\w{0,3}\("
)
_OVER_BATCHES = re.compile(r"for .* in .*(?:loader|batches|iterator|dataset|_dl\b|_iter)")
_EVALUATES = re.compile(
    r"eval|valid|test|infer|predict|sampl|generat|main|extract|embed|encode|score|visual|demo|act\b|accuracy|metric"
)
_NOT_EVALUATING = frozenset({"forward", "__init__", "__call__"})
_MOST_LINES = 120
_MOST_CHARACTERS = 200_000
_TESTS = re.compile(r"(^|/)(tests?|testing|unit_tests|integration_tests)(/|$)|/test_")
# Where people train and evaluate; read first.
_SCRIPTS = re.compile(r"example|script|recipe|train|eval|infer|predict|demo|run_|main|test")


@dataclass(frozen=True)
class Guard:
    """One guard: what its place says instead when it is undone. Lines are from 1, columns from 0."""

    kind: str
    span: CodeRange
    undone: str

    @property
    def line(self) -> int:
        return self.span.start.line


class Guards(cst.CSTVisitor):
    """All guards of a file."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, tree: cst.Module) -> None:
        super().__init__()
        self.found: list[Guard] = []
        self._tree = tree
        self._functions: list[str] = []

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:  # noqa: N802
        self._functions.append(node.name.value)
        for decorator in node.decorators:
            if _GRAD_OFF.fullmatch(self._code(decorator.decorator)) and self._evaluates(node.body):
                self._add("decorator", decorator, "")

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:  # noqa: ARG002, N802
        self._functions.pop()

    def visit_With(self, node: cst.With) -> None:  # noqa: N802
        header = self._code(node.items[0].item)
        is_alone = len(node.items) == 1 and node.items[0].asname is None
        if is_alone and _GRAD_OFF.fullmatch(header) and header.endswith(")") and self._evaluates(node.body):
            self._add("no_grad", node.items[0].item, header)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:  # noqa: N802
        if isinstance(node.operator, cst.AddAssign):
            self._stripped("sum", node.value)

    def visit_Call(self, node: cst.Call) -> None:  # noqa: N802
        name, keywords = self._code(node.func), {item.keyword.value: item for item in node.args if item.keyword}
        if isinstance(node.func, cst.Attribute) and node.func.attr.value == "append" and len(node.args) == 1:
            self._stripped("append", node.args[0].value)
        if name.endswith("torch.load") and "map_location" in keywords:
            self._add("map_location", node, self._code(_without(node, keywords["map_location"])))
        reentrant = keywords.get("use_reentrant")
        if name.endswith("checkpoint") and reentrant is not None and self._code(reentrant.value) == "False":
            self._add("reentrant", node, self._code(_without(node, reentrant)))

    def _stripped(self, kind: str, value: cst.BaseExpression) -> None:
        while isinstance(value, cst.BinaryOperation):  # `total += loss.item() * n`
            value = value.left if _has_call(self._code(value.left)) else value.right
        bare = value
        while (
            isinstance(bare, cst.Call) and isinstance(bare.func, cst.Attribute) and bare.func.attr.value in _TAKEN_OFF
        ):
            bare = bare.func.value
        if bare is not value:
            self._add(kind, value, self._code(bare))

    def _evaluates(self, body: cst.BaseSuite) -> bool:
        text, name = self._code(body), self._functions[-1] if self._functions else "main"
        if name in _NOT_EVALUATING or text.count("\n") > _MOST_LINES or not _MODEL.search(text):
            return False
        return bool(_EVALUATES.search(name) or _OVER_BATCHES.search(text))

    def _add(self, kind: str, node: cst.CSTNode, undone: str) -> None:
        self.found.append(Guard(kind, self.get_metadata(PositionProvider, node), undone))

    def _code(self, node: cst.CSTNode) -> str:
        return self._tree.code_for_node(node)


def _is_taken_off(node: cst.BaseExpression) -> bool:
    called = node.func if isinstance(node, cst.Call) else None
    return isinstance(called, cst.Attribute) and called.attr.value in _TAKEN_OFF


def _has_call(text: str) -> bool:
    return any(f".{name}(" in text for name in _TAKEN_OFF)


def _without(call: cst.Call, argument: cst.Arg) -> cst.Call:
    rest = [item for item in call.args if item is not argument]
    if rest and argument is call.args[-1]:
        rest[-1] = rest[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return call.with_changes(args=rest)


def guards_of(text: str) -> list[Guard]:
    tree = cst.parse_module(text)
    visitor = Guards(tree)
    MetadataWrapper(tree, unsafe_skip_copy=True).visit(visitor)
    return visitor.found


def undo(text: str, guard: Guard) -> str:
    """The text without the guard. No line moves."""
    lines = text.splitlines(keepends=True)
    first, last = guard.span.start, guard.span.end
    if guard.kind == "decorator":
        lines[guard.line - 1] = "#" + lines[guard.line - 1][1:]
        return "".join(lines)
    before = "".join(lines[: first.line - 1]) + lines[first.line - 1][: first.column]
    after = lines[last.line - 1][last.column :] + "".join(lines[last.line :])
    if guard.kind == "no_grad":
        return re.sub(r"\bwith\s+$", "if ", before) + "True" + after
    return before + guard.undone + "\n" * (text.count("\n") - (before + guard.undone + after).count("\n")) + after


def findings(path: Path, text: str, root: Path) -> set[tuple[int, str]]:
    """Line and code of what memlint says in its default run, with the package as the project."""
    policy = Policy(frozenset(rule.code for rule in all_rules()), Confidence.MEDIUM, None, str(root), path)
    return {(item.start.line, item.code) for item in lint(str(path), text.encode(), policy).findings}


def is_reported(path: Path, text: str, guard: Guard, root: Path) -> bool | None:
    """Whether a finding appears; None where the text cannot be undone in this way."""
    changed = undo(text, guard)
    try:
        compile(changed, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    return bool(findings(path, changed, root) - findings(path, text, root))


def files_of(package: Path) -> list[Path]:
    """In an order that is the same everywhere, scripts first; no tests, which run small models once."""
    names = [path.relative_to(package).as_posix() for path in package.rglob("*.py")]
    names = sorted(name for name in names if not _TESTS.search(name))
    random.Random(package.name).shuffle(names)
    return [package / name for name in sorted(names, key=lambda name: not _SCRIPTS.search(name))]


def sampled(package: Path, kind: str, *, per_package: int, per_file: int) -> Iterator[tuple[Path, str, Guard]]:
    taken = 0
    for path in files_of(package):
        text = path.read_bytes().decode(errors="replace")
        usable = "torch" in text and "\r" not in text and "\ufffd" not in text and len(text) <= _MOST_CHARACTERS
        if not usable or not re.search(KINDS[kind], text):
            continue
        try:
            guards = [guard for guard in guards_of(text) if guard.kind == kind]
        except cst.ParserSyntaxError:
            continue
        random.Random(path.name).shuffle(guards)
        for guard in guards[:per_file]:
            yield path, text, guard
            taken += 1
            if taken == per_package:
                return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS))
    parser.add_argument("--packages", nargs="+", default=[], help="only those that begin so")
    parser.add_argument("--per-package", type=int, default=4)
    parser.add_argument("--per-file", type=int, default=2)
    parser.add_argument("--missed", action="store_true", help="print each place that is missed")
    options = parser.parse_args()
    tried, found = Counter[str](), Counter[str]()
    for package in sorted(path.resolve() for path in options.corpus.iterdir() if path.is_dir()):
        if options.packages and not package.name.startswith(tuple(options.packages)):
            continue
        for kind in options.kinds:
            limits = {"per_package": options.per_package, "per_file": options.per_file}
            for path, text, guard in sampled(package, kind, **limits):
                reported = is_reported(path, text, guard, package)
                tried[kind] += reported is not None
                found[kind] += bool(reported)
                if options.missed and reported is False:
                    print(f"{kind}: {path.relative_to(options.corpus.resolve())}:{guard.line}", flush=True)
    for kind in options.kinds:
        print(f"{kind}: {found[kind]} of {tried[kind]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
