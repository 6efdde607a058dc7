"""Which torch operations allocate, alias, or only read. Names as their documentation spells them.

Sources: torch 2.13 docstrings; the note "Tensor Views" for what aliases; derivatives.yaml for what an operation saves
for its backward pass (an operation that saves its *result* is in no table of fresh results).
"""

from __future__ import annotations

from memlint.semantics.knowledge import torch as known

TENSOR_CONSTRUCTORS = frozenset({"torch.tensor"})
CLONE_FUNCTIONS = frozenset({"torch.clone"})

# A freshly allocated tensor each time, whatever the arguments.
FACTORIES = known.FACTORIES
# `x.new_zeros(...)`: tensors only have these.
FACTORY_METHODS = frozenset({"new_zeros", "new_ones", "new_empty", "new_full"})
# Factories that work on the host unless told otherwise. Not `tensor`: its values come from the host. Not `*_like`: they
# follow their argument.
DETERMINISTIC_HOST_FACTORIES = frozenset(
    f"torch.{name}" for name in ("zeros", "ones", "full", "empty", "eye", "arange", "linspace", "logspace")
)
RANDOM_HOST_FACTORIES = frozenset(f"torch.{name}" for name in ("rand", "randn", "randint", "randperm"))
HOST_FACTORIES = DETERMINISTIC_HOST_FACTORIES | RANDOM_HOST_FACTORIES
# Legacy constructors, which work on the host only and leave what they allocate as it is: constructor -> the type that
# `torch.empty` needs to give the same; empty: the default type (torch/csrc/utils/tensor_new.cpp, legacy_tensor_ctor).
LEGACY_TYPES = {
    "torch.Tensor": "",
    "torch.FloatTensor": "float32",
    "torch.DoubleTensor": "float64",
    "torch.HalfTensor": "float16",
    "torch.BFloat16Tensor": "bfloat16",
    "torch.ByteTensor": "uint8",
    "torch.CharTensor": "int8",
    "torch.ShortTensor": "int16",
    "torch.IntTensor": "int32",
    "torch.LongTensor": "int64",
    "torch.BoolTensor": "bool",
}
LEGACY_CONSTRUCTORS = frozenset(LEGACY_TYPES)
# Computed, not only filled in: another device may round floating-point values differently.
COMPUTED_FACTORIES = frozenset({"torch.arange", "torch.linspace", "torch.logspace"})
# With one of these keywords the host is meant, the memory is somebody else's, or the result is a leaf.
FACTORY_KEYWORDS_WITH_A_MEANING = frozenset({"device", "out", "pin_memory", "generator", "requires_grad", "layout"})
# Words of code that wants the same random numbers on every device.
SEEDING_WORDS = frozenset(
    {
        "manual_seed",
        "manual_seed_all",
        "seed_everything",
        "set_seed",
        "fork_rng",
        "Generator",
        "default_generator",
        "set_rng_state",
    }
)
# With one of these, factories need no `device` to work on the device.
DEFAULT_DEVICE_WORDS = frozenset({"set_default_device", "set_default_tensor_type"})

# Operators whose result is always newly allocated and not saved for the backward pass.
FRESH_FUNCTIONS = frozenset(
    f"torch.{name}"
    for name in """add sub mul div matmul mm bmm mv addmm baddbmm cat concat concatenate stack neg lerp where flip
    roll gather index_select cumsum outer kron""".split()
)
FRESH_METHODS = frozenset(
    {
        "add",
        "sub",
        "mul",
        "div",
        "matmul",
        "mm",
        "bmm",
        "mv",
        "neg",
        "lerp",
        "flip",
        "roll",
        "gather",
        "index_select",
        "cumsum",
        "outer",
    }
)

# Methods that only read their receiver and tensor arguments; the result shares no memory with them.
READING_METHODS = FRESH_METHODS | frozenset(
    """abs acos amax amin aminmax argmax argmin argsort asin atan bernoulli bincount ceil clamp clamp_max clamp_min
    clip clone cos cosh count_nonzero cumprod diff dist dot eq equal erf exp expm1 floor fmod frac ge gt
    heaviside histc hypot inner inverse is_contiguous is_floating_point is_complex isclose isfinite isinf isnan
    isneginf isposinf item kthvalue le log log10 log1p log2 log_softmax logical_and logical_not logical_or
    logical_xor logit logsumexp lt masked_fill masked_select max maximum mean median min minimum mode
    multinomial nan_to_num nanmean nansum ne nonzero norm pow prod quantile reciprocal relu remainder repeat
    repeat_interleave round rsqrt scatter scatter_add sigmoid sign sin sinh softmax sort sqrt square std sum tan
    tanh take tile tolist topk trace tril triu true_divide trunc unique var xlogy size dim numel nelement
    ndimension stride element_size allclose any all new_zeros new_ones new_empty new_full""".split()
)
# Methods whose result may share memory with the receiver.
ALIASING_METHODS = frozenset(
    """view view_as reshape reshape_as flatten unflatten squeeze unsqueeze t transpose permute movedim moveaxis
    swapaxes expand expand_as narrow select diagonal contiguous detach float double half bfloat16 long int short
    bool to cpu cuda type type_as chunk split unbind tensor_split unfold ravel""".split()
)
READING_ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "is_cuda", "layout"})

# Functions that only read their tensor arguments; the result shares no memory with them. Not einsum and tensordot:
# these may return a view.
READING_FUNCTIONS = (
    FRESH_FUNCTIONS
    | FACTORIES
    | frozenset(f"torch.{name}" for name in READING_METHODS - {"item", "tolist", "size", "dim", "stride"})
    | frozenset(
        f"torch.{name}"
        for name in """allclose atan2 cdist cosine_similarity cov cross dstack hstack is_floating_point is_tensor
        isclose logaddexp std_mean var_mean vstack""".split()
    )
    | frozenset(
        f"torch.nn.functional.{name}"
        for name in """avg_pool1d avg_pool2d binary_cross_entropy binary_cross_entropy_with_logits conv1d conv2d conv3d
    cosine_similarity cross_entropy elu fold gelu grid_sample group_norm interpolate kl_div l1_loss
    layer_norm leaky_relu linear log_softmax max_pool1d max_pool2d mse_loss nll_loss one_hot pairwise_distance
    relu scaled_dot_product_attention sigmoid silu smooth_l1_loss softmax softplus tanh unfold""".split()
    )
    | frozenset({"abs", "bool", "float", "int", "isinstance", "len", "print", "range", "repr", "round", "str", "type"})
)
# A keyword that makes a function write to an argument.
WRITING_KEYWORDS = frozenset({"out", "inplace"})
# Functions that take `inplace` by position, too.
INPLACE_BY_POSITION = frozenset({"relu", "elu", "leaky_relu", "silu", "selu", "celu", "hardtanh", "mish", "dropout"})

# Calls that ask for a value's type.
TYPE_TESTS = frozenset({"isinstance", "torch.is_tensor"})

# Words with which code inspects or changes variables behind the analysis' back.
REFLECTION_WORDS = frozenset({"locals", "globals", "vars", "exec", "eval"})
GRAD_MODE_WORDS = frozenset({"no_grad", "inference_mode", "enable_grad", "set_grad_enabled"})

# Factories whose positional arguments are the shape.
SHAPED_FACTORIES = LEGACY_CONSTRUCTORS | {f"torch.{name}" for name in ("zeros", "ones", "empty", "rand", "randn")}

# One-dimensional results (torch documentation).
RANGES = COMPUTED_FACTORIES | {"torch.randperm"}
# They make more elements of those they get.
REPEATING_METHODS = frozenset({"repeat", "tile", "expand", "triu", "tril", "fill_diagonal_"})
# What there are few of: `num_classes`, `n_heads`, `self._num_labels`.
FEW_WORDS = frozenset("classes class labels heads groups tasks domains experts atoms".split())
COUNTING_WORDS = frozenset({"num", "n", "nb", "number", "count"})
# Methods that run once for an object, to set it up (torch.nn.Module subclasses; transformers' `_init_weights`).
SET_UP_METHODS = frozenset(
    {"__init__", "__post_init__", "setup", "reset_parameters", "init_weights", "_init_weights", "initialize"}
)

# What may stand between a factory and the copy to the device: it works on the device as well.
HOST_CHAIN_METHODS = frozenset(
    """unsqueeze squeeze view reshape expand repeat tile flatten transpose permute t long float double half bool int
    bfloat16 type contiguous triu tril fill_ zero_ fill_diagonal_ uniform_ normal_ random_ bernoulli_
    exponential_""".split()
)
RANDOM_FILLING_METHODS = frozenset({"uniform_", "normal_", "random_", "bernoulli_", "exponential_"})
MASKING_FUNCTIONS = frozenset({"torch.triu", "torch.tril"})

# NumPy functions and methods that give arrays (numpy documentation), and annotations that name one. `torch.tensor` of
# an array with `device=` reads the array itself; without, it copies it first (torch/csrc/utils/tensor_new.cpp,
# internal_new_from_data).
ARRAY_FUNCTIONS = frozenset(
    f"numpy.{name}"
    for name in """array asarray ascontiguousarray stack concatenate vstack hstack zeros ones full empty arange
    linspace load expand_dims""".split()
)
ARRAY_METHODS = frozenset({"numpy", "to_numpy"})
ARRAY_ANNOTATIONS = frozenset({"numpy.ndarray", "numpy.typing.NDArray", "numpy.array"})
