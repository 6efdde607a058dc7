"""What memlint knows of collecting predictions."""

from __future__ import annotations

# torch functions that make one tensor of a list of tensors.
JOINS = frozenset(
    f"torch.{name}" for name in ("cat", "concat", "concatenate", "stack", "vstack", "hstack", "dstack", "row_stack")
)
JOINING_WORDS = frozenset(name.rpartition(".")[2] for name in JOINS) | {"nested_concat"}
# Functions of two arguments that join what stands in nested tuples (transformers: trainer_pt_utils).
NESTED_JOINS = frozenset(
    f"transformers.{module}.nested_concat" for module in ("trainer_pt_utils", "trainer_utils", "trainer")
)
# Methods that end on the host. `.numpy()` alone does not show it: it raises for a tensor of a device.
HOST_METHODS = frozenset({"cpu", "tolist"})
# Methods and functions with as many numbers in the result as go in, or nearly so.
SAME_SIZE = frozenset(
    """softmax log_softmax sigmoid exp log tanh relu clamp detach float double half bfloat16 to clone contiguous data
    view reshape flatten squeeze unsqueeze permute transpose t type normalize logsigmoid round abs
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool2d max_pool2d interpolate rearrange""".split()
)
# accelerate.Accelerator: the outputs of all processes for one batch, on the device.
GATHERING = frozenset({"gather", "gather_for_metrics", "pad_across_processes"})
# Methods that sum up: of the states of all tokens they leave a vector for each text.
REDUCING = frozenset({"mean", "sum", "max", "amax"})
TOKEN_STATES = frozenset({"last_hidden_state", "hidden_states", "token_embeddings"})
# Functions that make one vector of the states of all tokens.
POOLING_WORDS = frozenset({"pool", "pooling", "pooler", "pooled"})
# Functions that give their argument back on the host, by their names (transformers.trainer_pt_utils.nested_numpify,
# and what projects call their own).
HOST_FUNCTIONS = frozenset(
    """to_numpy tensor_to_numpy tensor2numpy to_np to_cpu to_host detach_to_cpu detach_cpu nested_numpify tensor2np
    tensor2array""".split()
)
# What writes a tensor to a file, from wherever it is.
SAVING = frozenset({"torch.save", "pickle.dump"})
# Where each round of a loop that generates samples begins.
NOISE = frozenset({"torch.randn", "torch.rand", "torch.randint", "torch.normal"})
# What comes after joining, before the result goes to the host: the numbers that are kept may be fewer.
AFTER_JOINING = SAME_SIZE | {"argmax", "numpy", "long", "int", "bool"}
# Names of results that are single numbers.
LOSS_WORDS = frozenset({"loss", "losses", "criterion", "metric", "acc", "accuracy"})
# Methods of a module that give no output of a batch.
NO_OUTPUT_METHODS = frozenset(
    """parameters named_parameters state_dict load_state_dict eval train to cuda cpu half float loss compute_loss
    get_loss training_step validation_step zero_grad modules children buffers item tolist numpy""".split()
)
# What an unknown callable is called that is a model.
MODEL_WORDS = frozenset(
    """model net network encoder decoder backbone generator classifier discriminator extractor inception unet vae
    student teacher""".split()
)
# What an unknown model's methods are called that give the output of a batch: `model.encode_image(images)`.
OUTPUT_METHOD_WORDS = frozenset({"encode", "decode", "embed", "forward", "features", "extract", "logits"})
# What a list of batches is called.
BATCH_WORDS = frozenset({"batches", "minibatches", "chunks", "dl"})
TRIGGERS = HOST_METHODS | HOST_FUNCTIONS | {"to", "save", "dump", "on_predict_batch_end"}
# What cuts one tensor into pieces.
SPLITS = frozenset({"torch.split", "torch.chunk", "torch.tensor_split"})
SPLITTING_METHODS = frozenset({"split", "chunk", "tensor_split"})
