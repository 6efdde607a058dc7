"""What memlint knows of hooks: the methods that register them, and how one module is reached from another."""

from __future__ import annotations

# torch.nn.Module documentation: each returns a handle, and the hook stays until `handle.remove()`.
MODULE_HOOKS = frozenset(
    """register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_backward_hook""".split()
)
# torch.Tensor: of a parameter it stays as long as the parameter does; of an activation it dies with the graph.
TENSOR_HOOKS = frozenset({"register_hook", "register_post_accumulate_grad_hook"})

FORWARD_HOOKS = frozenset({"register_forward_hook", "register_forward_pre_hook"})
GRADIENT_HOOKS = frozenset(
    {"register_full_backward_hook", "register_full_backward_pre_hook", "register_backward_hook", "register_hook"}
)
# In a class that mentions one of these, hooks may be taken out.
LETTING_GO = frozenset({"remove", "RemovableHandle", "__exit__", "__del__", "weakref", "WeakMethod"})

# Code that touches these takes hooks out by another way.
HOOK_TABLES = frozenset(
    """_forward_hooks _forward_pre_hooks _backward_hooks _full_backward_hooks _backward_pre_hooks
    _forward_hooks_with_kwargs""".split()
)

# Methods whose result is a part of their object, or the object itself.
PARTS = frozenset(
    """get named_modules modules children named_children items values get_submodule parameters named_parameters
    get_parameter eval to cuda cpu train half float double requires_grad_ get_input_embeddings get_output_embeddings
    get_encoder get_decoder pop""".split()
)
# Functions whose result is a part of their first argument.
PARTS_OF_FIRST = frozenset({"getattr", "dict", "list", "tuple", "next", "iter", "reversed", "enumerate", "zip"})
# Builtins that make no module: they pick from those that they are given, or ask about them.
PICKING = frozenset(
    """getattr dict list tuple next iter reversed enumerate zip filter sorted set map range len min max any all str int
    isinstance issubclass hasattr callable type id vars""".split()
)
# `model.get_layer(name)`, `find_module(net, path)`: a part of a module, where the name says both.
FINDING_WORDS = frozenset({"get", "find", "fetch", "lookup", "resolve", "select", "target", "rgetattr"})
PART_WORDS = frozenset(
    """layer layers module modules submodule submodules block blocks attr attribute conv child children stage
    rgetattr""".split()
)
# Methods that run a model.
RUNS = frozenset({"forward", "generate", "__call__"})

TENSOR_HOOK = "register_hook"
# What makes a leaf, or tells that a tensor is one: its hooks are freed with it (checked on torch 2.13).
LEAF_METHODS = frozenset({"requires_grad_", "detach", "detach_"})
LEAF_MAKERS = frozenset({"Variable", "Parameter", "tensor", "as_tensor", "from_numpy", "leaf_variable"})
PARTIAL = frozenset({"functools.partial"})
# `x.to(device)` of a tensor that is there already is x.
MAY_RETURN_ITSELF = frozenset(
    {"to", "cuda", "cpu", "float", "half", "double", "bfloat16", "type", "type_as", "contiguous"}
)
