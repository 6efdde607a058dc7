"""What memlint knows of training steps: variables, gradients, recomputed activations, frozen models."""

from __future__ import annotations

from memlint.semantics.knowledge.torch import LIGHTNING_MODULES

# Since 0.4 `volatile` is accepted, warned about and ignored (torch.autograd documentation, "Variable (deprecated)").
VARIABLES = frozenset({"torch.autograd.Variable", "torch.autograd.variable.Variable"})
VOLATILE_IGNORED_SINCE = (0, 4)

# Gradients live in buffers that must stay where they are (torch.cuda.graph, DistributedDataParallel documentation).
KEEPS_GRADIENTS = frozenset({"gradient_as_bucket_view", "make_graphed_callables", "static_graph"})
CAPTURES = frozenset({"torch.cuda.graph", "torch.cuda.graphs.graph"})
COMPILES = frozenset({"torch.compile"})
# torch.compile documentation, `mode`.
MODES_WITH_CUDA_GRAPHS = frozenset({"reduce-overhead", "max-autotune"})

# Without `use_reentrant` these run the reentrant variant, with a warning (torch 2.13, checked).
CHECKPOINTS = frozenset({"torch.utils.checkpoint.checkpoint", "torch.utils.checkpoint.checkpoint_sequential"})
# transformers/modeling_utils.py: `gradient_checkpointing_enable` raises unless the class sets the flag; without it the
# attribute that switches the layers over is never set.
TRANSFORMERS_MODEL = "PreTrainedModel"
SUPPORTS_CHECKPOINTING = "supports_gradient_checkpointing"
CHECKPOINTING_SWITCH = "gradient_checkpointing"
# From this version on there is a variant that is not reentrant (pytorch/pytorch#69508).
NOT_REENTRANT_SINCE = (1, 11)

# What may be done to a sum of losses so that the sum of the terms' gradients is still its gradient, or that only looks.
LINEAR_METHODS = frozenset(
    """backward manual_backward scale mean sum div mul sub add true_divide item detach cpu cuda to float tolist numpy
    clone size dim squeeze view reshape append unscale_ div_ mul_ zero_ data_ptr""".split()
)
SCALING_METHODS = frozenset({"mul", "mul_", "div", "div_", "true_divide", "true_divide_"})
LINEAR_FUNCTIONS = frozenset(
    {"sum", "len", "torch.stack", "torch.cat", "torch.mean", "torch.sum", "torch.div", "torch.mul", "torch.add"}
    | {"torch.isnan", "torch.isfinite", "torch.isinf", "torch.autograd.backward", "float", "print", "str", "round"}
)

# What an optimizer is called, and what reads a loss to set its rate.
OPTIMIZER_WORDS = frozenset({"optimizer", "optim", "opt"})
SCHEDULER_WORDS = frozenset({"scheduler", "sched", "lr"})

# Methods of a module that change nothing about who trains it (torch.nn.Module documentation).
NEUTRAL_MODULE_METHODS = frozenset(
    """load_state_dict state_dict modules named_modules children named_children buffers named_buffers share_memory
    compile register_forward_hook register_forward_pre_hook forward __call__ get_submodule extra_repr""".split()
)
PARTS_OF_A_MODULE = frozenset({"modules", "named_modules", "children", "named_children"})
# What a loop over parameters may freeze them with (`detach_` takes `requires_grad` from a leaf), or reads instead.
FREEZING_A_PARAMETER = frozenset({"grad", "requires_grad", "requires_grad_", "detach_"})
# Where a file has one of these, somebody may freeze a network. A tensor made with `requires_grad=True` is no sign.
FREEZING_TEXTS = (
    ".requires_grad", "_requires_grad", "'requires_grad'", '"requires_grad"', "requires_grad=False", "freeze", "frozen",
    ".detach_(",
)  # fmt: skip
# Attributes of a module that hold no parameters.
PLAIN_ATTRIBUTES = ("config", "device", "dtype", "training", "features", "dim", "size", "name", "classes", "channels")
# A method or a function with one of these words in its name may freeze a module, or hand its parameters on.
FREEZING_WORDS = frozenset(
    """freeze frozen freezing unfreeze fix fixed grad grads lock params parameters param optim optimizer optimizers
    trainable train""".split()
)
# A function out of view with one of these words in its name only looks at a module, or fills its weights.
LOOKING_WORDS = frozenset(
    """evaluate evaluation eval validate validation val test summary print save load restore checkpoint count info
    log accuracy watch flops macs profile plot visualize show export num numel size ema sync copy soft hard update
    init initialize weights
    polyak""".split()
)
LOOKING_FUNCTIONS = frozenset(
    """print len isinstance hasattr getattr type id str repr callable sum list tuple zip enumerate map filter next
    max min any all set iter reversed sorted""".split()
)
# A class that mentions one of these may freeze its parameters, or run with grad off.
FREEZING_ITSELF = frozenset({"requires_grad", "requires_grad_", "no_grad", "inference_mode", "set_grad_enabled"})
# Classes out of view with one of these words in their names freeze themselves, or have no parameters.
SELF_FROZEN_WORDS = frozenset(
    """loss losses criterion perceptual lpips frozen embedder metric metrics fid inception normalizer transform
    transforms augment augmentation scheduler tokenizer""".split()
)
# Whatever they build has parameters that need gradients.
MODEL_BUILDERS = ("torchvision.models.", "timm.create_model", "timm.models.create_model", "torch.hub.load")
# Functions so named build an architecture, and freeze nothing (torchvision, timm, and those who follow their names).
ARCHITECTURES = tuple(
    """resnet resnext wide_resnet wideresnet wrn preact vgg densenet mobilenet shufflenet efficientnet convnext regnet
    swin vit_ deit alexnet googlenet squeezenet xception unet""".split()
)
# Layers that have parameters (torch.nn).
LAYERS_WITH_PARAMETERS = frozenset(
    """Linear Bilinear LazyLinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Embedding
    EmbeddingBag LSTM GRU RNN LSTMCell GRUCell RNNCell Transformer TransformerEncoder TransformerEncoderLayer
    TransformerDecoder TransformerDecoderLayer MultiheadAttention Parameter""".split()
)
# Their weights take no gradient (transformers: quantization).
QUANTIZING_KEYWORDS = frozenset({"load_in_8bit", "load_in_4bit", "quantization_config"})
# Names by which a model is called that somebody else trains, or trained before.
FROZEN_ROLES = frozenset(
    """teacher ref reference target targ tgt ema momentum frozen old prev previous pretrained vgg vae clip anchor
    slow""".split()
)
# Names of models from which another one learns: their outputs are targets.
TEACHER_WORDS = frozenset({"teacher", "tea", "ema", "target", "targ", "tgt", "momentum", "reference", "ref"})
# What a preference loss compares the policy with is called so: `reference_model`, `ref_policy`.
REFERENCE_WORDS = frozenset({"reference", "ref"})
POLICY_WORDS = frozenset({"model", "policy", "lm", "llm", "actor"})
# Names of copies whose weights are averages, or taken over, of those of a model that is trained.
AVERAGED_WORDS = frozenset({"ema", "averaged", "shadow", "momentum"})

# What these methods return is differentiated by the framework (lightning, transformers.Trainer documentation).
DIFFERENTIATED_RESULTS = {
    "training_step": LIGHTNING_MODULES,
    "compute_loss": frozenset({"transformers.Trainer", "transformers.Seq2SeqTrainer", "transformers.trainer.Trainer"}),
}
