"""Ways to write code otherwise that change nothing: each form is a function from a node to what stands in its place.

A form gives the node itself back where there is nothing to rewrite. Some change what code is about to a reader who
knows no more than the file (a base class, a name), and some are unusual; both show what a finding hangs on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import libcst as cst
import libcst.matchers as m

Node = Any
_AT_END = frozenset({"Return", "Yield", "Break", "Continue", "Await", "Global", "Nonlocal", "Del"})


@dataclass(frozen=True)
class Form:
    """What a form does to each node of some kind, and an import that the new code needs."""

    kind: type[cst.CSTNode]
    change: Callable[[Node], Node]
    needs: str = ""


class _Rewriter(cst.CSTTransformer):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form
        self.changes = 0

    def on_leave(self, original_node: Node, updated_node: Node) -> Node:
        node = super().on_leave(original_node, updated_node)
        if not isinstance(node, self._form.kind):
            return node
        new = self._form.change(node)
        self.changes += new is not node
        return new


def rewritten(code: str, form: str) -> str | None:
    """The code in that form; None where there is nothing to rewrite."""
    given = FORMS[form]
    if given.needs == "import torch" and given.needs not in code:
        return None  # that it is about torch would be news
    rewriter = _Rewriter(given)
    new = cst.parse_module(code).visit(rewriter)
    if not rewriter.changes:
        return None
    if not given.needs or f"{given.needs}\n" in code:
        return new.code
    return _with_import(new, given.needs).code


def _with_import(module: cst.Module, line: str) -> cst.Module:
    at = next((i for i, item in enumerate(module.body) if not _stands_first(item)), len(module.body))
    return module.with_changes(body=[*module.body[:at], _line(line), *module.body[at:]])


def _stands_first(line: cst.CSTNode) -> bool:
    future = m.SimpleStatementLine([m.ImportFrom(module=m.Name("__future__"))])
    return m.matches(line, m.SimpleStatementLine([m.Expr(m.SimpleString())]) | future)


# --- pieces of code ---


def _line(text: str) -> Node:
    return cst.parse_statement(f"{text}\n")


def _set(target: Node, value: Node) -> cst.SimpleStatementLine:
    return cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(target)], value)])


def _call(name: str, *given: Node) -> cst.Call:
    return cst.Call(cst.parse_expression(name), [cst.Arg(item) for item in given])


def _in_parentheses(node: Node) -> Node:
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _tuple(names: Sequence[str]) -> Node:
    if len(names) == 1:
        return cst.Name(names[0])
    return cst.Tuple([cst.Element(cst.Name(name)) for name in names], lpar=[], rpar=[])


def _only(line: Node, kind: type[cst.CSTNode]) -> Node:
    """The statement of a line that holds no other; None where it is not of that kind."""
    is_line = isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1
    return line.body[0] if is_line and isinstance(line.body[0], kind) else None


def _in_lines(*lines: Node) -> Node:
    return cst.FlattenSentinel(lines)


def _found(node: Node, what: Any) -> list[Node]:
    return list(m.findall(node, what))


def _has(node: Node, *kinds: str) -> bool:
    return any(_found(node, getattr(m, kind)()) for kind in kinds)


def _names(node: Node) -> set[str]:
    return {item.value for item in _found(node, m.Name())}


def _targets(node: Node) -> Iterator[Node]:
    for item in _found(node, m.AssignTarget() | m.AugAssign() | m.AnnAssign() | m.For() | m.CompFor() | m.NamedExpr()):
        yield item.target
    for item in _found(node, m.AsName()):
        yield item.name


def _bound(node: Node) -> set[str]:
    """The names that the code binds."""
    found: set[str] = set()
    for target in _targets(node):
        parts = _found(target, m.Element() | m.StarredElement())
        found |= {item.value for item in [target, *(part.value for part in parts)] if isinstance(item, cst.Name)}
    return found


def _body_of(function: cst.FunctionDef) -> tuple[list[Node], list[Node]]:
    """The lines of a function: its docstring, and the others."""
    lines = list(function.body.body)
    doc = 1 if m.matches(lines[0], m.SimpleStatementLine([m.Expr(m.SimpleString())])) else 0
    return lines[:doc], lines[doc:]


def _with_lines(function: Node, lines: Sequence[Node]) -> Node:
    return function.with_changes(body=cst.IndentedBlock(list(lines)))


def _is_block(node: Node) -> bool:
    return isinstance(node.body, cst.IndentedBlock)


def _given(function: cst.FunctionDef) -> set[str]:
    """The names of all parameters."""
    return {param.name.value for param in _found(function.params, m.Param())}


def _parameters(function: cst.FunctionDef) -> list[str] | None:
    """The names of plain parameters; None where there are others."""
    params = function.params
    if params.kwonly_params or params.posonly_params or params.star_kwarg or isinstance(params.star_arg, cst.Param):
        return None
    return [item.name.value for item in params.params]


# --- loops ---


def _progress_bar(loop: cst.For) -> Node:
    """`for x in tqdm(batches):`"""
    return loop.with_changes(iter=_call("tqdm", loop.iter), whitespace_after_in=cst.SimpleWhitespace(" "))


def _counted(loop: cst.For) -> Node:
    """`for number, (x, y) in enumerate(batches):`"""
    if m.matches(loop.iter, m.Call(m.Name("enumerate"))):
        return loop
    item = _in_parentheses(loop.target) if isinstance(loop.target, cst.Tuple) else loop.target
    pair = cst.Tuple([cst.Element(cst.Name("number_")), cst.Element(item)], lpar=[], rpar=[])
    space = cst.SimpleWhitespace(" ")
    return loop.with_changes(
        target=pair, iter=_call("enumerate", loop.iter), whitespace_after_in=space, whitespace_after_for=space
    )


def _with_first(loop: cst.For, line: Node) -> cst.For:
    return loop.with_changes(body=loop.body.with_changes(body=[line, *loop.body.body]))


def _is_plain(loop: cst.For) -> bool:
    return loop.asynchronous is None and _is_block(loop)


def _unpacked(loop: cst.For) -> Node:
    """`for batch in batches:`, and `x, y = batch` as the first line."""
    pairs = m.Call(m.Name("enumerate") | m.Name("zip") | m.Attribute(attr=m.Name("items")))
    if not isinstance(loop.target, cst.Tuple) or not _is_plain(loop) or m.matches(loop.iter, pairs):
        return loop
    return _with_first(loop.with_changes(target=cst.Name("batch_")), _set(loop.target, cst.Name("batch_")))


def _drawn(loop: cst.For) -> Node:
    """`for number in range(len(loader)):`, and `x, y = next(batches)` as the first line."""
    source = loop.iter
    if not isinstance(source, cst.Name) or "load" not in source.value or loop.orelse is not None or not _is_plain(loop):
        return loop
    first = _set(loop.target, cst.parse_expression("next(drawn_)"))
    turns = cst.parse_expression(f"range(len({source.value}))")
    drawing = _with_first(loop.with_changes(target=cst.Name("number_"), iter=turns), first)
    return _in_lines(_line(f"drawn_ = iter({source.value})"), drawing)


def _logged(loop: cst.For) -> Node:
    """`logging.info("step")` as the first line of each loop."""
    return _with_first(loop, _line('logging.info("step")')) if _is_plain(loop) else loop


def _autocast(loop: cst.For) -> Node:
    """`with torch.autocast("cuda"):` around the body of a loop in which nothing trains."""
    trains = _found(loop.body, m.Attribute(attr=m.Name("backward") | m.Name("step")))
    if trains or not _is_plain(loop):
        return loop
    around = _line('with torch.autocast("cuda"):\n    pass').with_changes(body=loop.body)
    return loop.with_changes(body=cst.IndentedBlock([around]))


def _step_in_function(function: cst.FunctionDef) -> Node:
    """The body of a loop in a function of its own, which gets what it mentions and returns what it sets."""
    if not _is_block(function) or function.decorators or function.asynchronous is not None:
        return function
    lines: list[Node] = list(function.body.body)
    at = next((at for at, line in enumerate(lines) if isinstance(line, cst.For) and _may_move(line)), None)
    if at is None:
        return function
    loop = lines[at]
    before = _given(function) | _bound(cst.IndentedBlock(lines[:at])) | _names(loop.target)
    given = sorted(_names(loop.body) & before)
    later = _names(cst.IndentedBlock(lines[at + 1 :])) if lines[at + 1 :] else set()
    back = sorted(_bound(loop.body) & (later | set(given)))
    name = f"step_{function.name.value}"
    end = [cst.SimpleStatementLine([cst.Return(_tuple(back))])] if back else []
    step = _with_lines(_line(f"def {name}({', '.join(given)}):\n    pass"), [*loop.body.body, *end])
    call = _call(name, *map(cst.Name, given))
    line = _set(_tuple(back), call) if back else cst.SimpleStatementLine([cst.Expr(call)])
    lines[at] = loop.with_changes(body=cst.IndentedBlock([line]))
    return _in_lines(step.with_changes(leading_lines=function.leading_lines), _with_lines(function, lines))


def _may_move(loop: cst.For) -> bool:
    return _is_plain(loop) and not _has(loop.body, *_AT_END, "FunctionDef", "Lambda")


# --- functions and classes ---


def _guarded(function: cst.FunctionDef) -> Node:
    """`try: ... finally: print("done")` around the body of each function."""
    if not _is_block(function) or _has(function.body, "Yield"):
        return function
    doc, lines = _body_of(function)
    around = _line('try:\n    pass\nfinally:\n    print("done")')
    return _with_lines(function, [*doc, around.with_changes(body=cst.IndentedBlock(lines))]) if lines else function


def _closure(function: cst.FunctionDef) -> Node:
    """The body in a nested function, which is called."""
    if (
        not _is_block(function)
        or _given(function) & _bound(function.body)
        or _has(function.body, "Yield", "Await", "Nonlocal")
    ):
        return function
    if function.name.value.startswith("__") or "super" in _names(function.body):
        return function
    doc, lines = _body_of(function)
    inner = _with_lines(_line("def run_():\n    pass"), lines)
    return _with_lines(function, [*doc, inner, _line("return run_()")]) if lines else function


def _in_module(change: Callable[[cst.FunctionDef], Node]) -> Callable[[cst.Module], Node]:
    """The change of each function that no class holds."""

    def of_module(module: cst.Module) -> Node:
        body: list[Node] = []
        for line in module.body:
            new = change(line) if isinstance(line, cst.FunctionDef) else line
            body += new.nodes if isinstance(new, cst.FlattenSentinel) else [new]
        same = all(a is b for a, b in zip(body, module.body, strict=False)) and len(body) == len(module.body)
        return module if same else module.with_changes(body=body)

    return of_module


def _with_self(function: Node, name: str) -> Node:
    own = cst.Param(cst.Name("self"))
    params = function.params.with_changes(params=[own, *function.params.params])
    return function.with_changes(name=cst.Name(name), params=params, leading_lines=[])


def _called_object(function: cst.FunctionDef) -> Node:
    """A class whose `__call__` does it, and an object of it under the function's name."""
    name = function.name.value
    if _has(function.body, "Yield", "Await") or function.asynchronous is not None or _parameters(function) is None:
        return function
    owner = _line(f"class Of_{name}:\n    pass")
    owner = owner.with_changes(body=cst.IndentedBlock([_with_self(function, "__call__")]))
    return _in_lines(owner, _line(f"{name} = Of_{name}()"))


class _Owned(cst.CSTTransformer):
    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self._names = names

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:  # noqa: ARG002, N802
        name = updated_node.value
        return cst.parse_expression(f"self.{name}") if name in self._names else updated_node

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:  # noqa: N802
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:  # noqa: N802
        return updated_node.with_changes(keyword=original_node.keyword)


def _own_model(module: cst.Module) -> Node:
    """A class that is given the model, and a method that does it: `self.model(x)`."""
    words = [item.value for item in _found(module, m.Name())]

    def change(function: cst.FunctionDef) -> Node:
        params, name = _parameters(function), function.name.value
        if params is None or not params or words.count(name) > 1 or function.asynchronous is not None:
            return function
        owned = {item for item in params if item in ("model", "net", "criterion", "optimizer")} - _bound(function.body)
        if not owned or _has(function.body, "Lambda", "FunctionDef") or function.decorators:
            return function
        rest = [item for item in function.params.params if item.name.value not in owned]
        params_left = function.params.with_changes(params=rest)
        method = _with_self(function.with_changes(params=params_left, body=function.body.visit(_Owned(owned))), name)
        given = sorted(owned)
        init = "\n".join(f"        self.{item} = {item}" for item in given)
        owner = _line(f"class Of_{name}:\n    def __init__(self, {', '.join(given)}):\n{init}\n")
        return owner.with_changes(body=cst.IndentedBlock([*owner.body.body, method]))

    return _in_module(change)(module)


def _script_in_main(module: cst.Module) -> Node:
    """`def main():` around what a script does, and `if __name__ == "__main__": main()`."""
    stay = (
        m.FunctionDef() | m.ClassDef() | m.SimpleStatementLine([m.Import() | m.ImportFrom() | m.Expr(m.SimpleString())])
    )
    does = [line for line in module.body if not m.matches(line, stay)]
    if not any(isinstance(line, (cst.For, cst.With)) for line in does):
        return module
    defined = [line for line in module.body if line not in does]
    if any(_names(line) & _bound(cst.IndentedBlock(does)) for line in defined):
        return module
    main = _with_lines(_line("def main():\n    pass"), does)
    return module.with_changes(body=[*defined, main, _line('if __name__ == "__main__":\n    main()')])


def _forwarded(function: cst.FunctionDef) -> Node:
    """What the file calls hands its arguments on: `def f(*args, **kwargs): return inner(*args, **kwargs)`."""
    name = function.name.value
    if function.asynchronous is not None or _parameters(function) is None:
        return function
    hand_on = _line(f"def {name}(*args, **kwargs):\n    return inner_{name}(*args, **kwargs)")
    return _in_lines(function.with_changes(name=cst.Name(f"inner_{name}")), hand_on)


def _by_keyword(module: cst.Module) -> Node:
    """`f(model=model, x=batch)` where the file has the function."""
    functions = {line.name.value: _parameters(line) for line in module.body if isinstance(line, cst.FunctionDef)}

    def change(call: cst.Call) -> Node:
        names = functions.get(call.func.value) if isinstance(call.func, cst.Name) else None
        if names is None or any(arg.star or arg.keyword for arg in call.args) or not 0 < len(call.args) <= len(names):
            return call
        equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
        given = zip(call.args, names, strict=False)
        args = [arg.with_changes(keyword=cst.Name(name), equal=equal) for arg, name in given]
        return call.with_changes(args=args)

    return _everywhere(cst.Call, change)(module)


def _everywhere(kind: type[cst.CSTNode], change: Callable[[Node], Node]) -> Callable[[cst.Module], Node]:
    def of_module(module: cst.Module) -> Node:
        rewriter = _Rewriter(Form(kind, change))
        new = module.visit(rewriter)
        return new if rewriter.changes else module

    return of_module


def _asynchronous(function: cst.FunctionDef) -> Node:
    """`async def`"""
    space = cst.SimpleWhitespace(" ")
    special = function.name.value.startswith("__") or function.name.value == "forward" or _has(function.body, "Yield")
    is_sync = function.asynchronous is None and not special and not function.decorators
    return function.with_changes(asynchronous=cst.Asynchronous(space)) if is_sync else function


def _async_script(module: cst.Module) -> Node:
    """`async def` for functions that the file does not call."""
    words = [item.value for item in _found(module, m.Name())]
    return _in_module(lambda item: _asynchronous(item) if words.count(item.name.value) == 1 else item)(module)


# --- statements ---


def _returned_by_name(line: cst.SimpleStatementLine) -> Node:
    """`result = model(x)`, `return result`"""
    only = _only(line, cst.Return)
    if only is None or only.value is None or isinstance(only.value, cst.Name):
        return line
    back = cst.SimpleStatementLine([cst.Return(cst.Name("result_"))])
    return _in_lines(_set(cst.Name("result_"), only.value), back)


def _arguments_by_name(line: cst.SimpleStatementLine) -> Node:
    """`value = model(x)`, `loss = criterion(value, y)`, where nothing is read in another order by that."""
    only = line.body[0]
    if len(line.body) > 1 or not isinstance(only, (cst.Assign, cst.AugAssign, cst.Expr, cst.Return)):
        return line
    call = only.value
    plain = (cst.Call, cst.Name, cst.SimpleString, cst.Integer, cst.Attribute)
    if not isinstance(call, cst.Call) or any(arg.star or not isinstance(arg.value, plain) for arg in call.args):
        return line
    if _has(call.func, "Call") or not any(isinstance(arg.value, cst.Call) for arg in call.args):
        return line
    before: list[Node] = []
    given: list[cst.Arg] = []
    for arg in call.args:
        # A name for each call in the file: its text says which.
        name = cst.Name(f"value_{zlib.crc32(cst.Module([line]).code.encode())}_{len(before)}")
        before += [_set(name, arg.value)] if isinstance(arg.value, cst.Call) else []
        given.append(arg.with_changes(value=name) if isinstance(arg.value, cst.Call) else arg)
    rest = only.with_changes(value=call.with_changes(args=given))
    return _in_lines(*before, line.with_changes(leading_lines=[], body=[rest]))


def _packed(line: cst.SimpleStatementLine) -> Node:
    """`pair = f(x)`, `a, b = pair` for `a, b = f(x)`."""
    only = _only(line, cst.Assign)
    if only is None or not m.matches(only, m.Assign([m.AssignTarget(m.Tuple())], m.Call())):
        return line
    return _in_lines(_set(cst.Name("pair_"), only.value), _set(only.targets[0].target, cst.Name("pair_")))


def _annotated(line: cst.SimpleStatementLine) -> Node:
    """`loss: Any = criterion(out, y)`"""
    only = _only(line, cst.Assign)
    variable = m.AssignTarget(m.Name() | m.Attribute(m.Name("self")))
    if only is None or not m.matches(only, m.Assign([variable])):
        return line
    return line.with_changes(body=[cst.AnnAssign(only.targets[0].target, cst.Annotation(cst.Name("Any")), only.value)])


def _is_sum(target: Node, value: Node) -> bool:
    return m.matches(value, m.BinaryOperation(operator=m.Add())) and value.left.deep_equals(target) and not value.lpar


def _added(node: cst.AugAssign) -> Node:
    """`total = total + loss` for `total += loss`."""
    target, value = node.target, node.value
    if not isinstance(target, cst.Name) or not isinstance(node.operator, cst.AddAssign):
        return node
    is_one = isinstance(value, (cst.Name, cst.Call, cst.Attribute, cst.Subscript))
    total = cst.BinaryOperation(target, cst.Add(), value if is_one else _in_parentheses(value))
    return cst.Assign([cst.AssignTarget(target)], total)


def _augmented(node: Node) -> Node:
    """`total += loss` for `total = total + loss`."""
    target = node.targets[0].target
    if len(node.targets) != 1 or not isinstance(target, (cst.Name, cst.Attribute)) or not _is_sum(target, node.value):
        return node
    return cst.AugAssign(target, cst.AddAssign(), node.value.right)


def _conditional(choice: cst.If) -> Node:
    """`x = a if c else b` for an `if` of which each branch sets the same name."""
    other = choice.orelse
    if not isinstance(other, cst.Else) or not _is_block(choice) or not _is_block(other):
        return choice
    branches = [_only(block.body[0], cst.Assign) for block in (choice.body, other.body) if len(block.body) == 1]
    if len(branches) != 2 or None in branches or len(branches[0].targets) != 1 or len(branches[1].targets) != 1:
        return choice
    target = branches[0].targets[0].target
    if not isinstance(target, cst.Name) or not target.deep_equals(branches[1].targets[0].target):
        return choice
    return _set(target, cst.IfExp(_in_parentheses(choice.test), branches[0].value, branches[1].value))


def _chosen(line: cst.SimpleStatementLine) -> Node:
    """`if c: x = a`, `else: x = b` for `x = a if c else b`."""
    only = _only(line, cst.Assign)
    if only is None or not isinstance(only.value, cst.IfExp):
        return line
    choice = _line("if test:\n    pass\nelse:\n    pass")
    then, other = (only.with_changes(value=value) for value in (only.value.body, only.value.orelse))
    return choice.with_changes(
        test=only.value.test,
        body=cst.IndentedBlock([cst.SimpleStatementLine([then])]),
        orelse=choice.orelse.with_changes(body=cst.IndentedBlock([cst.SimpleStatementLine([other])])),
    )


# --- lists ---


def _appending(text: str) -> Callable[[cst.Module], Node]:
    """Another way to append to a list that the file makes: `losses += [loss]`."""

    def of_module(module: cst.Module) -> Node:
        made = _found(module, m.Assign([m.AssignTarget()], m.List([])))
        lists = [item.targets[0].target for item in made]

        def change(line: Node) -> Node:
            only = _only(line, cst.Expr)
            appends = m.Expr(m.Call(m.Attribute(attr=m.Name("append")), [m.Arg(keyword=None, star="")]))
            if only is None or not m.matches(only, appends):
                return line
            target, value = only.value.func.value, only.value.args[0].value
            if not any(target.deep_equals(item) for item in lists):
                return line
            code = module.code_for_node
            return line.with_changes(body=_line(text.format(code(target), code(value))).body)

        return _everywhere(cst.SimpleStatementLine, change)(module)

    return of_module


def _by_default(node: Node) -> Node:
    """`logs.setdefault(key, []).append(x)` for `logs[key].append(x)`."""
    indexed = m.Subscript(m.Name(), [m.SubscriptElement(m.Index(m.Name() | m.SimpleString()))])
    if not m.matches(node, m.Call(m.Attribute(indexed, m.Name("append")))):
        return node
    owner = node.func.value
    kept = _call("x", owner.slice[0].slice.value, cst.List([]))
    kept = kept.with_changes(func=cst.Attribute(owner.value, cst.Name("setdefault")))
    return node.with_changes(func=node.func.with_changes(value=kept))


# --- names of torch ---


def _method(name: str, change: Callable[[Node], Node]) -> Callable[[cst.Call], Node]:
    """The change of what a method without arguments is called on."""

    def of_call(call: Node) -> Node:
        return change(call.func.value) if m.matches(call, m.Call(m.Attribute(attr=m.Name(name)), [])) else call

    return of_call


def _torch_is_th(module: cst.Module) -> Node:
    """`import torch as th`"""
    words = {item.value for item in _found(module, m.Name())}
    lines = _found(module, m.ImportAlias(m.Name("torch"), None))
    others = _found(module, m.ImportAlias(m.Attribute(m.Name("torch")), None))
    if not lines or others or "th" in words:
        return module

    def alias(line: cst.ImportAlias) -> Node:
        named = cst.AsName(cst.Name("th"), cst.SimpleWhitespace(" "), cst.SimpleWhitespace(" "))
        return line.with_changes(asname=named) if line in lines or m.matches(line.name, m.Name("torch")) else line

    def used(node: cst.Attribute) -> Node:
        return node.with_changes(value=cst.Name("th")) if m.matches(node.value, m.Name("torch")) else node

    # `import torch.nn as nn` says `torch` too, and so may a parameter.
    if _found(module, m.ImportFrom(module=m.Name("torch") | m.Attribute()) | m.Param(m.Name("torch"))):
        return module
    if _found(module, m.ImportAlias(m.Attribute())):
        return module
    return _everywhere(cst.Attribute, used)(_everywhere(cst.ImportAlias, alias)(module))


def _no_grad_by_name(module: cst.Module) -> Node:
    """`from torch import no_grad`"""

    def change(node: cst.Attribute) -> Node:
        return cst.Name("no_grad") if m.matches(node, m.Attribute(m.Name("torch"), m.Name("no_grad"))) else node

    new = _everywhere(cst.Attribute, change)(module)
    return module if new is module else _with_import(new, "from torch import no_grad")


def _functional(module: cst.Module) -> Node:
    """`torch.nn.functional.relu` for `F.relu`."""
    imports = m.ImportAlias(asname=m.AsName(name=m.Name("F")))
    if not _found(module, imports) or "torch.nn.functional as F" not in module.code:
        return module

    def change(node: cst.Attribute) -> Node:
        is_f = m.matches(node.value, m.Name("F"))
        return node.with_changes(value=cst.parse_expression("torch.nn.functional")) if is_f else node

    return _with_import(_everywhere(cst.Attribute, change)(module), "import torch.nn.functional")


def _renamed(old: frozenset[str], new: str) -> Callable[[cst.Module], Node]:
    """A variable by another name that does as well."""

    def of_module(module: cst.Module) -> Node:
        names = _names(module)
        if new in names or len(names & old) != 1:
            return module
        return module.visit(_Renamed(old, new))

    return of_module


class _Renamed(_Owned):
    def __init__(self, old: frozenset[str], new: str) -> None:
        super().__init__(set(old))
        self._new = new

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:  # noqa: ARG002, N802
        return updated_node.with_changes(value=self._new) if updated_node.value in self._names else updated_node


_BATCHES = frozenset({"x", "batch", "inputs", "images", "image", "img", "xb", "features", "sample"})
FORMS = {
    "progress-bar": Form(cst.For, _progress_bar, "from tqdm import tqdm"),
    "counted": Form(cst.For, _counted),
    "unpacked": Form(cst.For, _unpacked),
    "drawn": Form(cst.For, _drawn),
    "logged": Form(cst.For, _logged, "import logging"),
    "autocast": Form(cst.For, _autocast, "import torch"),
    "step-in-function": Form(cst.Module, _in_module(_step_in_function)),
    "guarded": Form(cst.FunctionDef, _guarded),
    "closure": Form(cst.FunctionDef, _closure),
    "called-object": Form(cst.Module, _in_module(_called_object)),
    "own-model": Form(cst.Module, _own_model),
    "script-in-main": Form(cst.Module, _script_in_main),
    "forwarded": Form(cst.Module, _in_module(_forwarded)),
    "by-keyword": Form(cst.Module, _by_keyword),
    "async": Form(cst.Module, _async_script),
    "returned-by-name": Form(cst.SimpleStatementLine, _returned_by_name),
    "arguments-by-name": Form(cst.SimpleStatementLine, _arguments_by_name),
    "packed": Form(cst.SimpleStatementLine, _packed),
    "annotated": Form(cst.SimpleStatementLine, _annotated, "from typing import Any"),
    "added": Form(cst.AugAssign, _added),
    "augmented": Form(cst.Assign, _augmented),
    "conditional": Form(cst.If, _conditional),
    "chosen": Form(cst.SimpleStatementLine, _chosen),
    "list-added": Form(cst.Module, _appending("{0} += [{1}]")),
    "list-anew": Form(cst.Module, _appending("{0} = {0} + [{1}]")),
    "list-extended": Form(cst.Module, _appending("{0}.extend([{1}])")),
    "set-default": Form(cst.Call, _by_default),
    "detach-is-data": Form(cst.Call, _method("detach", lambda x: cst.Attribute(x, cst.Name("data")))),
    "detach-function": Form(cst.Call, _method("detach", lambda x: _call("torch.Tensor.detach", x)), "import torch"),
    "item-is-float": Form(cst.Call, _method("item", lambda x: _call("float", x))),
    "torch-is-th": Form(cst.Module, _torch_is_th),
    "no-grad-by-name": Form(cst.Module, _no_grad_by_name),
    "functional": Form(cst.Module, _functional),
    "batch-is-data": Form(cst.Module, _renamed(_BATCHES, "data")),
    "model-is-net": Form(cst.Module, _renamed(frozenset({"model"}), "net")),
    "net-is-model": Form(cst.Module, _renamed(frozenset({"net", "network"}), "model")),
}
