"""What memlint knows of checkpoints: who loads them, and what in code shows that a file is one."""

from __future__ import annotations

# torch.load documentation: tensors return to the device they were saved from unless map_location says otherwise.
# Function -> the position of `map_location` among its arguments.
LOADS_TO_SAVED_DEVICE = {"torch.load": 1}
MAP_LOCATION = "map_location"
# lightning.pytorch.core.LightningModule.load_from_checkpoint(checkpoint_path, map_location=None, ...)
LIGHTNING_LOAD = "load_from_checkpoint"
LIGHTNING_MAP_LOCATION = 1

# Keys that only a checkpoint has (PyTorch recipe "Saving and loading a general checkpoint", Lightning's checkpoints).
CHECKPOINT_KEY_ENDINGS = ("state_dict", "optimizer_states", "optim_dict")
CHECKPOINT_KEYS = frozenset(
    {"optimizer", "optim", "hyper_parameters", "lr_schedulers", "model", "weights", "model_weights", "model_dict"}
)

# Functions that put a loaded object into modules and optimizers (ignite.handlers.Checkpoint.load_objects).
RESTORING_FUNCTIONS = frozenset({"load_state_dict", "load_objects"})
# What a variable that holds a checkpoint, and a function that returns one, is called; and what is only about one.
CHECKPOINT_WORDS = frozenset({"checkpoint", "checkpoints", "ckpt", "ckpts", "statedict", "snapshot", "pretrained"})
# `data = torch.load(path)` in a function called `load_checkpoint`, `read_state_dict`, `restore_from_ckpt`.
LOADING_VERBS = frozenset({"load", "read", "restore", "resume", "recover", "reload"})
# `model_state = torch.load(path)`, `model_weights = torch.load(path)`
MODEL_STATES = (frozenset({"state", "dict"}), frozenset({"model", "state"}), frozenset({"model", "weights"}))
# What the code calls a file that holds a checkpoint: `torch.load(ckpt_path)`, `torch.load(weights_file)`.
FILES_OF_CHECKPOINTS = frozenset({"checkpoint", "checkpoints", "ckpt", "ckpts", "weights"})
FILES_OF_OTHERS = frozenset(
    {"vocab", "class", "sample", "samples", "loss", "losses", "rng", "random", "args", "cfg", "config"}
)
ABOUT_CHECKPOINTS = frozenset(
    """path paths file files name names dir epoch step config cfg args info metadata meta index keys version latest
    convert converted quantized rng random class sample samples loss losses""".split()
)

# What one asks of a tensor, never of a checkpoint.
TENSOR_QUESTIONS = frozenset({"size", "dim", "shape", "ndim", "numel", "dtype"})
DICTIONARY_METHODS = frozenset({"items", "keys", "values", "get", "pop"})

# Methods of a loaded object that prove it a pickled module (torch.nn.Module).
PICKLED_MODULE_METHODS = frozenset(
    {
        "eval",
        "cuda",
        "parameters",
        "named_parameters",
        "named_modules",
        "state_dict",
        "requires_grad_",
        "load_state_dict",
    }
)

# A module that defines one of these keeps what it is given, on the device where it is (torch.nn.Module documentation).
OWN_LOADING_METHODS = frozenset(
    {
        "load_state_dict",
        "_load_from_state_dict",
        "set_extra_state",
        "_register_load_state_dict_pre_hook",
        "register_load_state_dict_pre_hook",
    }
)

# Objects whose state is numbers, by the words in their names: schedulers, gradient scalers, samplers, reports. Loading
# them costs no device memory worth a word (torch.optim.lr_scheduler, torch.amp.GradScaler: state_dict documentation).
NUMBER_STATES = frozenset(
    {
        "scheduler",
        "schedulers",
        "sched",
        "scaler",
        "sampler",
        "reporter",
        "meter",
        "stopper",
        "stopping",
        "history",
        "tokenizer",
    }
)

SCHEDULERS = "torch.optim.lr_scheduler."

# States that are saved from host memory: torch's FullStateDictConfig and StateDictOptions; what code calls it when it
# puts a state there itself (fairseq's `move_to_cpu`, mmengine's `weights_to_cpu`).
OFFLOADING_WORDS = frozenset({"offload_to_cpu"})
_STATE_SPELLINGS = ("state", "state_dict", "self.state_dict", "model", "model.state_dict", "get_state_dict")
HOST_STATES = (
    "cpu_state_dict",
    *(f"move_to_cpu({state}" for state in _STATE_SPELLINGS),
    *(f"weights_to_cpu({state}" for state in _STATE_SPELLINGS),
    *(f"state_dict_to_cpu({state}" for state in _STATE_SPELLINGS),
)

SAVES = frozenset({"torch.save"})
HOST_BUFFERS = frozenset({"io.BytesIO"})
# A file without any of these names puts nothing on a device.
MOVING_WORDS = frozenset({"to", "cuda", "device", "xpu", "mps", "accelerator", "device_map"})
# torch_xla saves host copies (torch_xla.core.xla_model.save).
OTHER_DEVICES = frozenset({"torch_xla"})

# With one process per GPU every process loads onto the device named in the file (torch.distributed tutorials).
ONE_PROCESS_PER_GPU = frozenset(
    {"init_process_group", "DistributedDataParallel", "FullyShardedDataParallel", "init_distributed"}
)
