"""Checkpoints that are read back to the device they were saved from, and where their contents go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.project.names import is_symbol
from memlint.semantics.events import Argument, Call, Use
from memlint.semantics.keepers import bound_parameter
from memlint.semantics.knowledge import checkpoints as known
from memlint.semantics.knowledge import torch
from memlint.semantics.knowledge.training import OPTIMIZER_WORDS
from memlint.semantics.module import Module
from memlint.semantics.naming import is_model_name, words_of
from memlint.semantics.scopes import (
    assignments_in,
    imported_names,
    nodes_of,
    parameters,
    parents_within,
    path_of,
    walk,
)
from memlint.semantics.values import Kind, Value


@dataclass(frozen=True, eq=False)
class CheckpointLoad:
    """A call that reads a checkpoint without `map_location`."""

    call: Call
    evidence: cst.CSTNode | None
    """What shows that the file holds a checkpoint; None for a loader that reads nothing else."""
    only_copied: bool
    """Every tensor in it is copied into a module or an optimizer of torch, on whose device it ends in either case."""
    every_process: bool
    """The file sets up one process per GPU."""
    adopted: bool
    """In one process: a pickled module, or the state of an optimizer alone. The loaded tensors are used themselves."""
    by_name: bool = False
    """Only a name says that it is a checkpoint."""
    saved_from_host: bool = False
    """The project puts states on the host before it saves them."""
    ignores_parameter: bool = False
    """The function is told where to load it, and does not hand that on."""


def checkpoint_loads(module: Module) -> Iterator[CheckpointLoad]:
    if not module.words.isdisjoint(known.OTHER_DEVICES) and not _other_devices_are_optional(module):
        return
    every_process = not module.words.isdisjoint(known.ONE_PROCESS_PER_GPU)
    for call in module.calls:
        if _is_lightning_load(module, call):
            yield CheckpointLoad(
                call,
                None,
                only_copied=False,
                every_process=every_process and not _is_its_own(module, call),
                adopted=False,
                saved_from_host=module.once(_saves_from_host),
            )
            continue
        position = _map_location_position(call)
        if position is None or _says_where(call, position) or call.root < 0:
            continue
        if _saved_on_the_host(module, call) or _is_quantized(call):
            continue
        uses = module.uses_of(call.root)
        restoring = _restoring(module, call.root)
        asked = _ignored_parameter(call)
        evidence = (
            next(iter(restoring), None) or _shown_by(module, call.root) or _shown_where_returned(module, call) or asked
        )
        by_name = evidence is None and not _is_chosen(call) and _is_named_checkpoint(call)
        if evidence is None and not (by_name and call.scope.is_function and not _is_one_tensor(call, uses)):
            continue
        adopted = _is_used_as_module(uses) or (bool(restoring) and all(_adopts(module, node) for node in restoring))
        yield CheckpointLoad(
            call,
            evidence,
            _only_copied(module, call, uses),
            every_process and not _is_its_own(module, call),
            adopted and not every_process,
            by_name,
            module.once(_saves_from_host),
            asked is not None,
        )


def _is_one_tensor(load: Call, uses: list[Use]) -> bool:
    """`pretrained.size(1)`: embeddings, or what else was stored as a tensor; of a dictionary its items are asked."""
    if any(_is_state(target) for target in _targets(load)):
        return False
    asked = {use.detail for use in uses if use.how in ("method", "attribute")}
    return not asked.isdisjoint(known.TENSOR_QUESTIONS) and asked.isdisjoint(known.DICTIONARY_METHODS)


def _saves_from_host(module: Module) -> bool:
    """Whether the project, or this file of it, moves states to the host before it saves them."""
    if not module.words.isdisjoint(known.OFFLOADING_WORDS) or module.mentions(known.HOST_STATES):
        return True
    view = module.analysis.view
    return view is not None and any(view.is_mentioned(text) for text in known.HOST_STATES)


def _other_devices_are_optional(module: Module) -> bool:
    """Imported at the top, below a condition: the file is for GPUs too."""
    names = known.OTHER_DEVICES
    blocks = [node for node in module.tree.body if isinstance(node, (cst.If, cst.Try))]
    optional = sum(_imports(block, names) for block in blocks if not _is_for_type_checkers(block))
    return optional > 0 and optional == _imports(module.tree, names)


def _imports(inside: cst.CSTNode, names: frozenset[str]) -> int:
    """How many imports in it name one of the packages."""
    found = 0
    for node in walk(inside):
        if isinstance(node, (cst.Import, cst.ImportFrom)):
            found += any(qualified.partition(".")[0] in names for _, qualified in imported_names(node))
    return found


def _is_for_type_checkers(block: cst.If | cst.Try) -> bool:
    return isinstance(block, cst.If) and (path_of(block.test) or "").rpartition(".")[2] == "TYPE_CHECKING"


def _adopts(module: Module, node: cst.CSTNode) -> bool:
    """An optimizer takes over loaded tensors that lie on its parameters' device (checked on torch 2.13)."""
    call = module.call_at(node)
    if call is None or call.receiver is None or call.receiver_node is None:
        return False
    name = (path_of(call.receiver_node) or "").rpartition(".")[2]
    return call.receiver.kind is Kind.OPTIMIZER or not words_of(name).isdisjoint(OPTIMIZER_WORDS)


def _is_chosen(load: Call) -> bool:
    """`map_location="cpu" if args.map_to_cpu else None` of a conversion."""
    given = load.keywords.get(known.MAP_LOCATION)
    return given is not None and path_of(given.expression) != "None"


def _is_used_as_module(uses: list[Use]) -> bool:
    """A pickled module that goes on being used, other than one that only gives its state away."""
    methods = {use.detail for use in uses if use.how == "method"} & known.PICKLED_MODULE_METHODS
    return not methods <= {"state_dict"}


def _ignored_parameter(load: Call) -> cst.Param | None:
    """The `map_location` of the function around, where nothing but calls of other functions is given it."""
    if not isinstance(load.scope.node, cst.FunctionDef):
        return None
    for param in parameters(load.scope.node.params):
        if param.name.value != known.MAP_LOCATION:
            continue
        parents = parents_within(load.scope.node.body)
        read = [node for node in walk(load.scope.node.body) if path_of(node) == known.MAP_LOCATION]
        arguments = (parents.get(id(node)) for node in read)
        if all(isinstance(argument, cst.Arg) for argument in arguments):
            return param
    return None


def _is_quantized(load: Call) -> bool:
    """Weights quantized dynamically are kept, saved and run on the CPU."""
    return any("quantize" in word for word in load.scope.words)


def _map_location_position(call: Call) -> int | None:
    if len(call.callee.quals) != 1:
        return None
    return known.LOADS_TO_SAVED_DEVICE.get(next(iter(call.callee.quals)))


def _says_where(call: Call, position: int) -> bool:
    given = call.keywords.get(known.MAP_LOCATION)
    if given is not None:
        return not _is_none_at_times(call, given.expression)
    return call.unpacks or len(call.positional) > position


def _is_none_at_times(call: Call, given: cst.BaseExpression) -> bool:
    """`None if torch.cuda.is_available() else "cpu"`, also by a variable: nothing is said where there is a GPU."""
    if not isinstance(given, cst.Name) or path_of(given) == "None":
        return _holds_none(given)
    return any(_holds_none(node.value) for node in assignments_in(call.scope.node).get(given.value, ()))


def _holds_none(value: cst.BaseExpression) -> bool:
    ways = (value.body, value.orelse) if isinstance(value, cst.IfExp) else (value,)
    return any(path_of(way) == "None" for way in ways)


def _is_lightning_load(module: Module, call: Call) -> bool:
    """`Classifier.load_from_checkpoint(path)` of a Lightning module of this file."""
    if (
        call.method != known.LIGHTNING_LOAD
        or len(call.callee.quals) != 1
        or _says_where(call, known.LIGHTNING_MAP_LOCATION)
    ):
        return False
    qualified = next(iter(call.callee.quals))
    owner = qualified.rpartition(".")[0]
    view = module.analysis.view
    if view is not None and is_symbol(qualified):
        is_own = view.is_class(owner) and view.method(owner, known.LIGHTNING_LOAD) is None
        return is_own and not torch.LIGHTNING_MODULES.isdisjoint(view.bases(owner))
    is_own = module.analysis.is_class(owner) and module.analysis.method(owner, known.LIGHTNING_LOAD) is None
    return is_own and bool(module.analysis.base_names(owner) & torch.LIGHTNING_MODULES)


def _restoring(module: Module, root: int, depth: int = 2) -> list[cst.CSTNode]:
    """The calls that load a state, into objects that hold tensors, with something made of the loaded object.

    Also in functions of this file that are given it: `self.set_weights(torch.load(path))`.
    """
    found: list[cst.CSTNode] = []
    for call, handed in module.once(_calls_given).get(root, ()):
        if any(map(_is_state_for_class, handed)):
            found.append(call.node)
        elif _loads_state(call):
            found += [] if _holds_numbers(module, call) else [call.node]
        elif depth > 0:
            for inner in _parameters_given(module, call, handed):
                found += _restoring(module, inner, depth - 1)
    return found


def _is_state_for_class(argument: Argument) -> bool:
    """`Net.from_pretrained(None, state_dict=torch.load(path))`"""
    return argument.node.keyword is not None and argument.node.keyword.value == "state_dict"


def _calls_given(module: Module) -> dict[int, list[tuple[Call, list[Argument]]]]:
    """By definition: the calls that are given it, with the arguments that hold it."""
    found: dict[int, list[tuple[Call, list[Argument]]]] = {}
    for call in module.calls:
        handed: dict[int, list[Argument]] = {}
        for argument in (*call.positional, *call.keywords.values()):
            for root in _roots_in(module, argument.value):
                handed.setdefault(root, []).append(argument)
        for root, arguments in handed.items():
            found.setdefault(root, []).append((call, arguments))
    return found


def _parameters_given(module: Module, call: Call, handed: list[Argument]) -> Iterator[int]:
    """The definitions of the parameters that get the arguments, of functions of this file."""
    for scope in (module.analysis.scope_named(name) for name in call.callee.quals):
        if scope is None or not isinstance(scope.node, cst.FunctionDef):
            continue
        names = {bound_parameter(scope, call, argument) for argument in handed}
        for param in parameters(scope.node.params):
            if param.name.value in names:
                yield module.analysis.root_for(param)


def _loads_state(call: Call) -> bool:
    """`model.load_state_dict(...)`, and what others call that: `load_partial_state_dict(model, ...)`."""
    name = call.method or (path_of(call.call.func) or "").rpartition(".")[2]
    if name in known.RESTORING_FUNCTIONS:
        return True
    words = words_of(name)
    return words >= {"state", "dict"} and words.isdisjoint(known.NUMBER_STATES)


def _is_named_checkpoint(load: Call) -> bool:
    """`checkpoint = torch.load(path)`; what `load_checkpoint` loads, and what `checkpoint` returns as it was loaded."""
    if isinstance(load.statement, cst.Return) and _is_loaded_by(load.statement.value, load):
        return _names_checkpoint(load.scope.name) or _reads_checkpoint_file(load)
    target = next(_targets(load), None)
    if target is None:
        return False
    name = target.rpartition(".")[2]
    if _reads_checkpoint_file(load) and not is_model_name(name):
        return True
    returned = (node.value for node in nodes_of(load.scope.node, cst.Return))
    is_returned = any(value is not None and path_of(value) == target for value in returned)
    says_otherwise = not words_of(name).isdisjoint(known.NUMBER_STATES | known.ABOUT_CHECKPOINTS)
    if not says_otherwise and (is_returned or not words_of(load.scope.name).isdisjoint(known.LOADING_VERBS)):
        return _names_checkpoint(name) or _names_checkpoint(load.scope.name)
    return _names_checkpoint(name)


def _targets(load: Call) -> Iterator[str]:
    """The variable that holds what was loaded."""
    statement = load.statement
    if isinstance(statement, (cst.Assign, cst.AnnAssign)) and _is_loaded_by(statement.value, load):
        target = statement.target if isinstance(statement, cst.AnnAssign) else statement.targets[0].target
        yield path_of(target) or ""


def _is_loaded_by(value: cst.BaseExpression | None, load: Call) -> bool:
    """`torch.load(path)`, also where there is a file at all: `torch.load(path) if path else {}`."""
    ways = (value.body, value.orelse) if isinstance(value, cst.IfExp) else (value,)
    return any(way is load.node for way in ways)


def _reads_checkpoint_file(load: Call) -> bool:
    """`torch.load(ckpt_path)`: the code calls the file so."""
    path = path_of(load.positional[0].expression) if load.positional else None
    words = words_of((path or "").rpartition(".")[2])
    if not words.isdisjoint(known.NUMBER_STATES | known.FILES_OF_OTHERS):
        return False
    return not words.isdisjoint(known.FILES_OF_CHECKPOINTS)


def _names_checkpoint(name: str) -> bool:
    words = words_of(name)
    if not words.isdisjoint(known.NUMBER_STATES | known.ABOUT_CHECKPOINTS):
        return False
    return not words.isdisjoint(known.CHECKPOINT_WORDS) or _is_state(name)


def _is_state(name: str) -> bool:
    return any(words_of(name.rpartition(".")[2]) >= state for state in known.MODEL_STATES)


def _is_its_own(module: Module, load: Call) -> bool:
    """`torch.load(f"model_rank{rank}.bin")`: each process reads the file that it has written itself."""
    if not load.positional:
        return False
    assigned = [node for node in walk(load.scope.node) if isinstance(node, cst.Assign)]
    pending: list[cst.CSTNode] = [load.positional[0].expression]
    seen: set[str] = set()
    while pending:
        node = pending.pop()
        if "rank" in module.text(node, limit=400):
            return True
        names = {part.value for part in walk(node) if isinstance(part, cst.Name)} - seen
        seen |= names
        pending += [made.value for made in assigned if path_of(made.targets[0].target) in names]
    return False


def _holds_numbers(module: Module, call: Call) -> bool:
    """A scheduler, a gradient scaler: by what it is, or else by its name."""
    receiver = call.receiver
    if receiver is None or call.receiver_node is None or receiver.kind is Kind.OPTIMIZER:
        return False
    path = path_of(call.receiver_node)
    named = path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(known.NUMBER_STATES)
    if receiver.kind is Kind.MODULE or (receiver.cls is not None and not named):
        return False
    makers = [module.call_at(node) for node in module.definitions(receiver)]
    made_by = {qual for maker in makers if maker is not None for qual in maker.callee.quals}
    if any(qual.startswith(known.SCHEDULERS) for qual in made_by):
        return True
    return named or receiver.kind is Kind.SCALER


def _saved_on_the_host(module: Module, load: Call) -> bool:
    """The same function has just written the file (or the buffer) from host memory."""
    if not load.positional:
        return False
    target = module.text(load.positional[0].expression)
    calls = module.calls_in(load.scope)
    saves = [call for call in module.calls_of(known.SAVES) if call.scope is load.scope and len(call.positional) > 1]
    statements = {
        call.statement
        for call in saves
        if call.order < load.order and module.text(call.positional[1].expression) == target
    }
    if not statements:
        return False
    if module.words.isdisjoint(known.MOVING_WORDS) or any(
        call.method == "cpu" and call.statement in statements for call in calls
    ):
        return True
    return any(call.names(known.HOST_BUFFERS) and _assigned_to(call.statement, target) for call in calls)


def _assigned_to(statement: cst.CSTNode, name: str) -> bool:
    return isinstance(statement, cst.Assign) and any(path_of(target.target) == name for target in statement.targets)


def _roots_in(module: Module, value: Value) -> frozenset[int]:
    roots = value.roots
    for box in value.boxes:
        roots |= module.box(box).content.roots
    return roots


def _shown_by(module: Module, root: int, depth: int = 2) -> cst.CSTNode | None:
    """A use that only a checkpoint, or a pickled module, allows, also in functions of this file that are given it."""
    for use in module.uses_of(root):
        if use.how == "method" and use.detail in known.PICKLED_MODULE_METHODS:
            return use.node
        if use.how == "subscript" and isinstance(use.node, cst.Subscript) and _is_checkpoint_key(use.node):
            return use.node
        call = module.call_at(use.node) if use.how == "argument" and depth > 0 else None
        given = (*call.positional, *call.keywords.values()) if call is not None else ()
        handed = [argument for argument in given if root in argument.value.idents]
        for inner in _parameters_given(module, call, handed) if call is not None and handed else ():
            shown = _shown_by(module, inner, depth - 1)
            if shown is not None:
                return shown
    return None


def _shown_where_returned(module: Module, load: Call) -> cst.CSTNode | None:
    """`return torch.load(path)`, and what this file takes of that: `read_status(folder)["model_state"]`."""
    flow = module.flow_of(load.scope)
    if flow is None or not load.scope.is_function or load.root not in flow.return_roots:
        return None
    calls = {id(call.node): call for call in module.calls_of(frozenset({load.scope.qualname}))}
    statements = (call.statement for call in calls.values())
    items = (node for statement in statements for node in walk(statement) if isinstance(node, cst.Subscript))
    return next((item for item in items if id(item.value) in calls and _is_checkpoint_key(item)), None)


def _is_checkpoint_key(node: cst.Subscript) -> bool:
    index = node.slice[0].slice
    if not isinstance(index, cst.Index) or not isinstance(index.value, cst.SimpleString):
        return False
    key = index.value.evaluated_value
    if not isinstance(key, str):
        return False
    return key in known.CHECKPOINT_KEYS or key.endswith(known.CHECKPOINT_KEY_ENDINGS) or _is_state(key)


# --- may it be loaded on the CPU without anybody noticing? ---


def _only_copied(module: Module, load: Call, uses: list[Use]) -> bool:
    if load.in_try:
        return False  # a file saved from a GPU raises where there is none: somebody may count on that
    analysis = module.analysis
    root = load.root
    if root in analysis.escaped or root in analysis.shared:
        return False
    if any(root in flow.return_roots for flow in module.flows):
        return False
    if not load.scope.is_function and not isinstance(load.statement, cst.Expr):
        return False  # other files may import the name
    copied = False
    for use in uses:
        if use.how in ("subscript", "delete"):
            continue  # what it gives is followed as well
        if use.how != "argument" or not _copies(module, module.call_at(use.node), root):
            return False
        copied = True
    return copied


def _copies(module: Module, call: Call | None, root: int) -> bool:
    """`load_state_dict` of a known module, or of a torch optimizer: it copies to the device of its own parameters."""
    if call is None or call.method != "load_state_dict" or call.receiver is None or not call.positional:
        return False
    if call.unpacks or len(call.positional) > 2 or call.keywords.keys() - {"strict"} or call.callee.quals:
        return False
    if root not in call.positional[0].value.idents or call.receiver.cls is None:
        return False
    if call.receiver.kind is Kind.OPTIMIZER:
        return call.receiver.cls.startswith("torch.optim.")
    return call.receiver.kind is Kind.MODULE and _loads_by_copying(module, call.receiver.cls)


def _loads_by_copying(module: Module, cls: str) -> bool:
    if not module.words.isdisjoint(known.OWN_LOADING_METHODS - {"load_state_dict"}):
        return False
    if cls.startswith("torch.nn."):
        return True
    if not cls.startswith(":") or module.analysis.method(cls, "load_state_dict") is not None:
        return False
    return all(base.startswith((":", "torch.nn.")) for base in module.analysis.base_names(cls))
