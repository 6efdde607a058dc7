"""What memlint knows of torch, as data. Names are fully qualified as their documentation spells them.

Sources: torch 2.13 documentation and docstrings; the rows on what never requires grad were checked by experiment
(catalogue, section 1.3).
"""

from __future__ import annotations

# torch.autograd.grad_mode documentation. The same classes are reachable under several names.
GRAD_OFF_CONTEXTS = frozenset(
    {
        "torch.no_grad",
        "torch.inference_mode",
        "torch.autograd.no_grad",
        "torch.autograd.inference_mode",
        "torch.autograd.grad_mode.no_grad",
        "torch.autograd.grad_mode.inference_mode",
    }
)
GRAD_ON_CONTEXTS = frozenset(
    {"torch.enable_grad", "torch.autograd.enable_grad", "torch.autograd.grad_mode.enable_grad"}
)
SET_GRAD_ENABLED = frozenset(
    {"torch.set_grad_enabled", "torch.autograd.set_grad_enabled", "torch.autograd.grad_mode.set_grad_enabled"}
)

# Context managers that act only when entered and leave grad mode alone.
NEUTRAL_CONTEXTS = frozenset(
    {
        "torch.autocast",
        "torch.amp.autocast",
        "torch.cuda.amp.autocast",
        "torch.cpu.amp.autocast",
        "torch.autograd.graph.save_on_cpu",
        "torch.autograd.graph.saved_tensors_hooks",
        "torch.autograd.detect_anomaly",
        "torch.autograd.set_detect_anomaly",
        "torch.autograd.profiler.profile",
        "torch.autograd.profiler.record_function",
        "torch.profiler.profile",
        "torch.profiler.record_function",
        "torch.cuda.device",
        "torch.device",
        "torch.cuda.stream",
        "torch.cuda.nvtx.range",
        "torch.backends.cuda.sdp_kernel",
        "torch.nn.attention.sdpa_kernel",
        "torch.backends.cudnn.flags",
        "torch.backends.mkldnn.flags",
        "torch.jit.optimized_execution",
        "torch.utils.tensorboard.SummaryWriter",
        "torch.random.fork_rng",
        "open",
        "contextlib.closing",
        "contextlib.redirect_stderr",
        "contextlib.redirect_stdout",
    }
)
# Of these a bare call does nothing at all: they must be entered (torch.set_grad_enabled acts when called).
ACTS_ONLY_WHEN_ENTERED = (
    GRAD_OFF_CONTEXTS
    | GRAD_ON_CONTEXTS
    | {
        "torch.autocast",
        "torch.amp.autocast",
        "torch.cuda.amp.autocast",
        "torch.cpu.amp.autocast",
        "torch.autograd.graph.save_on_cpu",
    }
)

# Of these `()` cannot be entered: the device type is missing (torch.autocast documentation).
NEEDS_DEVICE_TYPE = frozenset({"torch.autocast", "torch.amp.autocast"})
# From this version on `@torch.no_grad` works without parentheses; before, the class took no function
# (torch.utils._contextlib._NoParamDecoratorContextManager, new in 2.0).
DECORATES_UNCALLED_SINCE = (2, 0)

MODULE_BASES = frozenset(
    {
        "torch.nn.Module",
        "torch.nn.modules.Module",
        "torch.nn.modules.module.Module",
        "torch.nn.Sequential",
        "torch.nn.ModuleList",
        "torch.nn.ModuleDict",
        "torch.nn.parallel.DistributedDataParallel",
        "torch.nn.DataParallel",
        "torch.jit.ScriptModule",
        "pytorch_lightning.LightningModule",
        "lightning.LightningModule",
        "lightning.pytorch.LightningModule",
        "pytorch_lightning.core.LightningModule",
        "transformers.PreTrainedModel",
        "transformers.modeling_utils.PreTrainedModel",
        "diffusers.ModelMixin",
    }
)
LIGHTNING_MODULES = frozenset(
    {
        "pytorch_lightning.LightningModule",
        "lightning.LightningModule",
        "lightning.pytorch.LightningModule",
        "pytorch_lightning.core.LightningModule",
        "lightning.pytorch.core.LightningModule",
    }
)
# Wrappers and helpers that return the module they are given (or a module around it).
RETURNS_ITS_MODULE = frozenset(
    {
        "torch.nn.parallel.DistributedDataParallel",
        "torch.nn.DataParallel",
        "torch.compile",
        "torch.jit.script",
        "torch.distributed.fsdp.FullyShardedDataParallel",
        "copy.deepcopy",
    }
)
# What these return has constants or packed weights for parameters: its output requires no grad (checked on 2.13).
RETURNS_FROZEN_MODULE = frozenset(
    {
        "torch.jit.freeze",
        "torch.jit.optimize_for_inference",
        "torch.ao.quantization.convert",
        "torch.ao.quantization.quantize_dynamic",
        "torch.quantization.convert",
        "torch.quantization.quantize_dynamic",
    }
)
# Attributes of torch.nn that are no module classes, or hold other namespaces.
NN_NOT_MODULES = frozenset(
    {"Parameter", "Buffer", "functional", "init", "utils", "parallel", "modules", "UninitializedParameter"}
)
# Module classes whose call returns one tensor.
TENSOR_MODULES = frozenset(
    {
        "Linear",
        "Bilinear",
        "Identity",
        "Embedding",
        "EmbeddingBag",
        "Flatten",
        "Unflatten",
        "Softmax",
        "LogSoftmax",
        "Sigmoid",
        "Tanh",
    }
    | {
        f"{name}{n}d"
        for n in (1, 2, 3)
        for name in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm", "AvgPool", "Dropout")
    }
    | {
        "ReLU",
        "GELU",
        "SiLU",
        "LeakyReLU",
        "ELU",
        "SELU",
        "Softplus",
        "Dropout",
        "LayerNorm",
        "GroupNorm",
        "RMSNorm",
        "Upsample",
    }
)
# Module classes that register these buffers themselves; without `track_running_stats` they are None, and no tensors.
NORMS_WITH_STATISTICS = frozenset(f"torch.nn.{kind}Norm{n}d" for n in (1, 2, 3) for kind in ("Batch", "Instance")) | {
    "torch.nn.SyncBatchNorm",
    "torch.nn.modules.batchnorm._BatchNorm",
}
RUNNING_STATISTICS = frozenset({"running_mean", "running_var"})
# What they are given are modules; other libraries give theirs the same names.
CONTAINERS_OF_MODULES = frozenset({"Sequential", "ModuleList", "ModuleDict"})
# Module classes without parameters that return one tensor: the graph only passes through them.
MODULES_WITHOUT_PARAMETERS = frozenset(
    """ReLU ReLU6 GELU SiLU Mish LeakyReLU ELU SELU CELU GLU Hardtanh Hardswish Hardsigmoid Softplus Softsign Sigmoid
    Tanh Softmax Softmin LogSoftmax LogSigmoid Threshold Identity Flatten Unflatten Upsample PixelShuffle PixelUnshuffle
    Fold Unfold Dropout Dropout1d Dropout2d Dropout3d AlphaDropout AvgPool1d AvgPool2d AvgPool3d MaxPool1d MaxPool2d
    MaxPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d
    AdaptiveMaxPool3d ZeroPad2d ConstantPad2d ReflectionPad2d ReplicationPad2d CosineSimilarity
    PairwiseDistance""".split()
)
# Module classes that return (output, state).
RECURRENT_MODULES = frozenset({"torch.nn.LSTM", "torch.nn.GRU", "torch.nn.RNN"})

PROFILER_WORDS = frozenset({"profiler", "prof"})

# Calling one of these on something proves it a module when it is also called with arguments.
MODULE_METHODS = frozenset(
    {
        "train",
        "eval",
        "parameters",
        "named_parameters",
        "modules",
        "named_modules",
        "children",
        "named_children",
        "buffers",
        "named_buffers",
        "zero_grad",
        "register_forward_hook",
        "load_state_dict",
    }
)
# Module methods that return the module itself.
MODULE_SELF_METHODS = frozenset(
    {
        "train",
        "eval",
        "to",
        "cuda",
        "cpu",
        "half",
        "float",
        "double",
        "bfloat16",
        "requires_grad_",
        "apply",
        "xpu",
        "type",
    }
)

LOADERS = frozenset(
    {
        "torch.utils.data.DataLoader",
        "torch.utils.data.dataloader.DataLoader",
        "torch_geometric.loader.DataLoader",
        "torch_geometric.data.DataLoader",
        "torchdata.stateful_dataloader.StatefulDataLoader",
        "monai.data.DataLoader",
    }
)
DATASET_BASES = frozenset(
    {
        "torch.utils.data.Dataset",
        "torch.utils.data.IterableDataset",
        "torch.utils.data.dataset.Dataset",
        "torch.utils.data.TensorDataset",
        "torch.utils.data.ConcatDataset",
        "torch.utils.data.Subset",
        "torchvision.datasets.VisionDataset",
        "torchvision.datasets.ImageFolder",
        "torch_geometric.data.Dataset",
        "torch_geometric.data.InMemoryDataset",
    }
)
SCALERS = frozenset({"torch.amp.GradScaler", "torch.cuda.amp.GradScaler", "torch.cuda.amp.grad_scaler.GradScaler"})
# Iteration wrappers: their elements are those of their first argument (zip: of any argument).
ITERATION_WRAPPERS = frozenset(
    {
        "enumerate",
        "iter",
        "zip",
        "reversed",
        "tqdm.tqdm",
        "tqdm.auto.tqdm",
        "tqdm.notebook.tqdm",
        "tqdm.autonotebook.tqdm",
        "tqdm.contrib.tenumerate",
        "itertools.islice",
        "itertools.cycle",
        "itertools.chain",
        "itertools.tee",
        "rich.progress.track",
        "tqdm.rich.tqdm",
        "fastprogress.progress_bar",
    }
)

# Those that count the items of what they are given, or draw a progress bar.
COUNTING_WRAPPERS = frozenset({"enumerate", "tqdm.contrib.tenumerate"})
WATCHING_WRAPPERS = ITERATION_WRAPPERS - {
    "zip",
    "reversed",
    "itertools.islice",
    "itertools.cycle",
    "itertools.chain",
    "itertools.tee",
}

# Tensor methods whose result carries no graph although it holds the values (torch.Tensor documentation).
DETACHING_METHODS = frozenset({"detach", "detach_"})
# Methods that leave the tensor world; the result can hold no graph. numpy() raises on a tensor that requires grad.
HOST_VALUE_METHODS = frozenset({"item", "tolist", "numpy", "size", "stride", "storage", "untyped_storage"})
# Methods whose result never requires grad, whatever the receiver (catalogue 1.3, verified).
NEVER_GRAD_METHODS = frozenset(
    {
        "argmax",
        "argmin",
        "argsort",
        "argwhere",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "equal",
        "allclose",
        "isclose",
        "isnan",
        "isinf",
        "isfinite",
        "nonzero",
        "count_nonzero",
        "long",
        "int",
        "bool",
        "short",
        "byte",
        "char",
        "logical_and",
        "logical_or",
        "logical_not",
        "logical_xor",
        "any",
        "all",
        "bincount",
        "searchsorted",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "new_tensor",
        "multinomial",
        "random_",
        "is_floating_point",
        "data_ptr",
        "element_size",
        "nelement",
        "numel",
        "dim",
        "ndimension",
        "size",
        "stride",
        "get_device",
        "storage",
        "untyped_storage",
        "storage_offset",
        "is_contiguous",
        "requires_grad_enabled",
        "histc",
    }
)
NUMBER_METHODS = frozenset(
    {
        "item",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "element_size",
        "data_ptr",
        "get_device",
        "storage_offset",
        "is_contiguous",
        "is_floating_point",
        "equal",
        "allclose",
    }
)
# Methods with a tensor result that carries the receiver's graph on. Only what is listed propagates.
DIFFERENTIABLE_METHODS = frozenset(
    """abs acos add addmm amax amin asin atan baddbmm bmm cat ceil chunk clamp clamp_min clamp_max clip clone contiguous
    cos cosh cpu cuda cumprod cumsum diag diagonal diff dist div divide dot double erf exp expand expand_as expm1
    flatten flip float floor fmod gather half bfloat16 index_add index_select inverse kthvalue lerp log log10 log1p log2
    log_softmax logit logsumexp masked_fill masked_select matmul max maximum mean median min minimum mm mul multiply mv
    narrow neg negative norm outer permute pow prod quantile reciprocal relu remainder repeat repeat_interleave reshape
    reshape_as roll round rsqrt rsub scatter scatter_add select sigmoid sign sin sinh softmax split sqrt square squeeze
    std sub subtract sum swapaxes t take tan tanh tensor_split tile to topk trace transpose tril triu type type_as
    unbind unflatten unfold unsqueeze var view view_as vsplit where xlogy movedim nanmean nansum nan_to_num moveaxis
    sort aminmax bernoulli add_ sub_ mul_ div_ pow_ clamp_ exp_ log_ sqrt_ relu_ sigmoid_ tanh_ neg_ squeeze_ unsqueeze_
    masked_fill_ transpose_ absolute acosh addbmm addcdiv addcmul addmv addr adjoint angle arccos arcsin arctan arctan2
    as_strided asinh atan2 atanh broadcast_to cholesky conj copysign corrcoef cov deg2rad det diag_embed digamma erfc
    erfinv exp2 fliplr flipud float_power fmax fmin frac hypot index_copy index_fill index_put inner lgamma logaddexp
    logcumsumexp logdet masked_scatter matrix_exp matrix_power mvlgamma nanquantile pinverse positive prelu put rad2deg
    ravel renorm rot90 scatter_reduce sgn sinc swapdims take_along_dim to_dense true_divide trunc vdot""".split()
)
# Of these, methods whose arguments are sizes, dimensions and types: only the receiver's graph goes on.
SHAPING_METHODS = frozenset(
    """chunk contiguous diagonal expand flatten flip movedim moveaxis narrow permute repeat reshape roll select split
    squeeze swapaxes t tensor_split tile transpose unbind unflatten unfold unsqueeze view""".split()
)
# Tensor methods with a tuple (or list) of tensors as result.
MULTI_RESULT_METHODS = frozenset(
    {"chunk", "split", "tensor_split", "unbind", "topk", "kthvalue", "sort", "vsplit", "aminmax"}
)
# Methods that only a tensor has (no numpy array, module, optimizer, list or number).
TENSOR_ONLY_METHODS = frozenset(
    {
        "backward",
        "detach",
        "detach_",
        "unsqueeze",
        "permute",
        "masked_fill",
        "scatter_",
        "index_select",
        "expand_as",
        "retain_grad",
        "log_softmax",
        "softmax",
        "new_zeros",
        "new_tensor",
        "type_as",
        "repeat_interleave",
        "logsumexp",
        "requires_grad_",
    }
) - {"requires_grad_"}
# They run or store the model they are given, and differentiate nothing (their documentation).
EXPORTING_FUNCTIONS = frozenset(
    """torch.save torch.onnx.export torch.onnx.utils.export torch.jit.trace torch.jit.script torch.jit.save
    torch.jit.freeze torch.export.export torch.compile torch.nn.DataParallel thop.profile torchsummary.summary
    torchinfo.summary""".split()
)
# What one of several outputs of a model is called, by a word of its name, when it depends on the parameters. (`preds`
# and `actions` may be indices.)
OUTPUT_WORDS = frozenset(
    """logits logit output outputs out outs loss recon recons reconstruction reconstructed features feats feat embedding
    embeddings emb embs scores hat""".split()
)
# What is called by one of these names is a model, if anything says that it may be one.
MODEL_NAMES = frozenset(
    "model net network module encoder decoder generator discriminator critic classifier backbone policy unet".split()
)
# What is called by a name made of these words, the last one a model's, is a model unless something says otherwise:
# `net(x)`, `self.target_network(obs)`, `netD(real)`.
MODEL_NOUNS = frozenset(
    """model net network backbone unet generator discriminator encoder actor critic qnetwork qnet dqn""".split()
)
MODEL_QUALIFIERS = frozenset(
    """base best critic ema local main my new old online policy pretrained q ref reference student target teacher
    trained value actor a b c d e f g s t 1 2""".split()
)
# What ends in one of these is a model whatever stands before it (`reward_model`, `text_encoder`), but for what makes
# the name that of a function, or of a model of another library: a verb, a preposition (`disable_dropout_in_model`).
QUALIFIED_MODEL_NOUNS = frozenset("model net network backbone unet encoder actor critic discriminator".split())
NOT_BEFORE_MODEL_NOUNS = frozenset(
    """add adapt adjust aggregate apply archive assert attach batch benchmark bind build calc calculate call cast change
    check choose clean clear clone close collect compare compile compress compute configure connect construct convert
    copy count create customize cut debug declare define del delete deploy describe detach disable dispatch display
    distill download draw dump enable enhance ensure eval evaluate expand explain export extend extract feed fetch fill
    finalize find finetune fit flatten format forward freeze fuse generate get give grow handle has hash hook infer init
    initialise initialize inject inspect install instantiate interpret is iterate join launch learn link list load lock
    log loop make map match measure merge move normalise normalize obtain open optimise optimize partition parse pass
    patch pick place plot polish post postprocess predict prepare preprocess pretrain print process profile prune pull
    push put quantize quantise query rank read receive reform register remap remove replace reset resize restore resume
    retrain retrieve return run sample save score search select send serve set setup shard share should show shrink
    simulate solve split start step stop store strip subset summarise summarize swap switch sync synchronise
    synchronize teach test tie time toggle trace train transform translate try tune unfreeze unlock unwrap update upload
    use validate verify visualise visualize warm warmup wrap write
    and as by for from in into of on or per that to with without
    tf tf2 tensorflow keras jax flax onnx trt tensorrt openvino ov caffe2 sklearn xgb lgb gp gpytorch botorch""".split()
)
# Whatever has one of these methods is a Lightning module, or one written after it.
STEPS_OF_MODELS = frozenset({"training_step", "validation_step", "test_step"})
# What is called by one of these names, as an attribute of a module of which nothing else is known, is a part of it.
PARTS_OF_MODELS = frozenset(
    """encoder decoder generator discriminator classifier backbone head neck projector predictor embedding embeddings
    transformer unet vae text_encoder image_encoder visual lm_head fc proj""".split()
)
# Methods that add their argument to the receiver itself.
ADDING_METHODS = frozenset({"add_", "sub_"})
COPYING_METHODS = frozenset({"cpu", "cuda", "clone", "to", "half", "float", "double", "bfloat16"})

# torch.* functions with one tensor as result, differentiable in their tensor arguments.
DIFFERENTIABLE_FUNCTIONS = frozenset(
    """abs add addmm amax amin atan2 baddbmm bmm cat clamp clone concat concatenate cos cosine_similarity cumprod cumsum
    diag diagonal diff dist div dot einsum exp flatten flip gather hstack index_select lerp linear log log1p log_softmax
    logsumexp masked_select matmul mean mm mul narrow neg norm outer permute pow prod relu repeat_interleave reshape
    roll rsqrt scatter select sigmoid sin softmax sqrt square squeeze stack std sub sum tanh tensordot tile trace
    transpose tril triu unsqueeze var vstack where bernoulli cdist cov cross dstack erf kron logaddexp maximum minimum
    nan_to_num nanmean nansum absolute acos acosh adaptive_avg_pool1d addbmm addcdiv addcmul addmv addr adjoint angle
    arccos arcsin arctan arctan2 as_strided asin asinh atan atanh avg_pool1d batch_norm bilinear block_diag broadcast_to
    cartesian_prod ceil celu chain_matmul cholesky clamp_max clamp_min clip column_stack combinations complex conj
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d copysign corrcoef cosh
    binary_cross_entropy_with_logits cosine_embedding_loss ctc_loss cumulative_trapezoid deg2rad det diag_embed diagflat
    digamma divide dropout erfc erfinv exp2 expm1 fliplr flipud float_power floor fmax fmin fmod frac group_norm hypot
    imag index_add index_copy index_fill index_put inner instance_norm inverse istft kl_div layer_norm ldexp lgamma
    log10 log2
    logaddexp2 logcumsumexp logdet logit margin_ranking_loss masked_fill masked_scatter matrix_exp matrix_power
    max_pool1d max_pool2d moveaxis movedim multiply mvlgamma nanquantile negative pairwise_distance pdist pinverse
    pixel_shuffle pixel_unshuffle polar positive prelu put quantile rad2deg ravel real reciprocal remainder renorm round
    row_stack rot90 rsub scatter_add scatter_reduce selu sgn sign sinc sinh stft subtract swapaxes swapdims t
    take take_along_dim tan trapezoid triplet_margin_loss true_divide trunc unfold vdot view_as_complex view_as_real
    xlogy""".split()
)
# torch.* functions whose result is no tensor.
NUMBER_FUNCTIONS = frozenset({"equal", "allclose", "is_tensor", "numel", "is_floating_point"})
# Functions that return several tensors when asked for more than the first.
TUPLE_KEYWORDS = frozenset({"return_inverse", "return_counts", "return_indices", "as_tuple"})
# torch.* functions whose result never requires grad.
NEVER_GRAD_FUNCTIONS = frozenset(
    """argmax argmin argsort eq ne lt le gt ge equal allclose isclose isnan isinf isfinite nonzero count_nonzero
    logical_and logical_or logical_not logical_xor any all bincount searchsorted multinomial histc unique is_tensor
    numel bucketize one_hot bitwise_and bitwise_not bitwise_or bitwise_xor greater greater_equal isin isneginf isposinf
    isreal less less_equal not_equal signbit""".split()
)
# torchvision/utils.py: each is decorated with `@torch.no_grad()`; `save_image` returns nothing.
PICTURES = frozenset(
    """make_grid save_image draw_bounding_boxes draw_segmentation_masks draw_keypoints flow_to_image""".split()
)
# Factories: a freshly allocated tensor each time. Those whose values are not random may be folded into another device.
DETERMINISTIC_FACTORIES = frozenset(
    f"torch.{name}" for name in ("zeros", "ones", "full", "empty", "arange", "linspace", "logspace", "eye", "tensor")
)
LIKE_FACTORIES = frozenset(f"torch.{name}" for name in ("zeros_like", "ones_like", "full_like", "empty_like"))
RANDOM_FACTORIES = frozenset(
    f"torch.{name}"
    for name in ("rand", "randn", "randint", "randperm", "normal", "rand_like", "randn_like", "randint_like")
)
FACTORIES = DETERMINISTIC_FACTORIES | LIKE_FACTORIES | RANDOM_FACTORIES
# With `requires_grad=True` these give a leaf: a tensor with no graph behind it (note "Autograd mechanics").
LEAF_MAKERS = FACTORIES | {"torch.tensor", "torch.autograd.Variable"}

TENSOR_ANNOTATIONS = frozenset({"torch.Tensor", "torch.FloatTensor", "torch.LongTensor", "torch.nn.Parameter"})

# Attributes of a model output that hold its differentiable tensors (transformers.utils.ModelOutput subclasses).
GRAPH_OUTPUT_ATTRIBUTES = frozenset(
    {"loss", "logits", "last_hidden_state", "pooler_output", "prediction_logits", "start_logits", "end_logits"}
)
# Functions whose backward needs sizes only (torch/tools/autograd/derivatives.yaml).
SAVING_NOTHING = frozenset(
    f"torch.{name}"
    for name in """mean sum neg add sub cat stack squeeze unsqueeze flatten reshape transpose permute chunk split unbind
    movedim clone""".split()
)
# Attributes of a tensor that are views of it, with its graph.
VIEW_ATTRIBUTES = frozenset({"T", "mT", "H", "mH", "real", "imag"})
# Attributes of a tensor that hold no graph.
PLAIN_TENSOR_ATTRIBUTES = frozenset(
    {"shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "grad_fn", "layout", "is_leaf"}
)

# Differentiating calls by method name: the first argument, where there is one, is what is differentiated
# (accelerate.Accelerator.backward, lightning.Fabric.backward, LightningModule.manual_backward, deepspeed
# engine.backward).
BACKWARD_METHODS = frozenset({"backward", "manual_backward"})
DIFFERENTIATING_FUNCTIONS = frozenset({"torch.autograd.backward", "torch.autograd.grad"})
# Called with a loss and an optimizer, they run the backward pass and the step: `NativeScaler` of timm/utils/cuda.py,
# which MAE and what came after it took over, under one of these names.
LOSS_SCALERS = frozenset({"loss_scaler", "scaler", "grad_scaler", "amp_scaler"})
# `step`: the optimizers of some projects are given the loss.
BACKWARD_WORDS = (
    BACKWARD_METHODS | LOSS_SCALERS | {"step"} | {name.rpartition(".")[2] for name in DIFFERENTIATING_FUNCTIONS}
)
"""One of them stands in every file that starts a backward pass."""
FUNCTIONAL_AUTOGRAD_PREFIXES = ("torch.func.", "torch.autograd.functional.", "functorch.")

# torch.* functions that return no tensor.
PLAIN_FUNCTIONS = frozenset(
    {"is_grad_enabled", "is_tensor", "Size", "dtype", "Generator", "get_rng_state", "manual_seed", "seed"}
)
# Functions and methods that return (values, indices) where a dimension is given.
REDUCTIONS_WITH_INDICES = frozenset({"max", "min", "median", "mode"})

# Functions of other libraries that return a module (their documentation).
# They return a module with the weights that it was saved with.
LOADS_MODEL = frozenset({"torch.jit.load", "torch.hub.load"})
MODULE_BUILDERS = frozenset({"timm.create_model", "timm.models.create_model", "torch.hub.load"})

# Methods and functions that return a tuple of tensors.
SEQUENCE_METHODS = frozenset({"chunk", "split", "tensor_split", "unbind", "vsplit", "hsplit", "dsplit", "aminmax"})

# Distributions hold the graph of their parameters (torch/distributions/distribution.py: `sample` runs under no_grad).
DISTRIBUTIONS = "torch.distributions."
SAMPLING_METHODS = frozenset({"sample", "sample_n", "enumerate_support"})
DENSITY_METHODS = frozenset({"log_prob", "entropy", "rsample", "cdf", "icdf", "perplexity"})

AUTOGRAD_FUNCTIONS = frozenset(
    {
        "torch.autograd.Function",
        "torch.autograd.function.Function",
        "torch.autograd.function.InplaceFunction",
        "torch.autograd.function.NestedIOFunction",
    }
)
# Methods that, called on an input of a Function's `forward`, prove it a tensor (no number, shape, group or array has
# them).
TENSOR_INPUT_METHODS = TENSOR_ONLY_METHODS | frozenset(
    """contiguous is_contiguous data_ptr new new_empty new_ones new_full new_zeros numel stride is_floating_point
    element_size mul_ add_ sub_ div_ copy_ zero_ fill_ clamp_ masked_fill_""".split()
)
# The legacy constructors: `torch.cuda.FloatTensor(n)`.
TENSOR_TYPES = frozenset(
    f"torch.{place}{kind}Tensor"
    for place in ("", "cuda.")
    for kind in ("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool")
) | {"torch.Tensor"}

# torch.dtype documentation.
DTYPES = frozenset(
    """float float16 float32 float64 half double bfloat16 int int8 int16 int32 int64 long short uint8 bool complex64
    complex128 cfloat cdouble""".split()
)
