"""Which methods frameworks call, and in which grad mode. Rows with their sources."""

from __future__ import annotations

import sys
from collections.abc import Set

# A file that mentions none of these is not known to be about torch.
TORCH_LIBRARIES = frozenset(
    """torch torchvision torchaudio torchtext torchmetrics torchdata lightning pytorch_lightning accelerate transformers
    diffusers timm peft trl ignite fastai kornia deepspeed colossalai ultralytics sentence_transformers monai catalyst
    torch_geometric pyro gpytorch botorch skorch open_clip detectron2 mmcv mmengine fairseq speechbrain
    segmentation_models_pytorch stable_baselines3 tianshou captum opacus einops xformers flash_attn bitsandbytes apex
    horovod fastai2 mmdet mmseg allennlp flair pytorch3d nemo composer""".split()
) | {"register_forward_hook", "register_full_backward_hook"}  # nobody else has methods of these names
# Other libraries with a `backward` of their own; what of torch's methods they have is not torch's.
_OTHER_LIBRARIES = frozenset(
    """paddle mxnet chainer tinygrad jittor oneflow mindspore tensorflow keras jax flax theano megengine micrograd
    cntk""".split()
)
# Methods that only torch's optimizers, modules and tensors have together.
_TORCH_METHODS = (
    frozenset({"zero_grad", "backward"}),
    frozenset({"detach", "cpu"}),
    frozenset({"detach", "cuda"}),
    frozenset({"state_dict", "load_state_dict"}),
    frozenset({"state_dict", "deepcopy"}),
)


def is_torch_code(words: Set[str]) -> bool:
    """Whether the code of a file, by its words, works with torch: by a library that it names, or by what it calls."""
    if not words.isdisjoint(TORCH_LIBRARIES):
        return True
    return words.isdisjoint(_OTHER_LIBRARIES) and any(words >= methods for methods in _TORCH_METHODS)


# torch runs these methods of a torch.autograd.Function with grad mode off (backward too, without create_graph;
# checked on 2.13).
FUNCTION_GRAD_OFF = frozenset({"forward", "backward", "setup_context"})

# Bases whose methods run in the caller's grad mode: knowing them, a method is as good as a function.
PLAIN_BASES = frozenset(
    {
        "object",
        "Exception",
        "dict",
        "list",
        "tuple",
        "str",
        "int",
        "float",
        "Enum",
        "type",
        "torch.optim.Optimizer",
        "torch.optim.optimizer.Optimizer",
        "torch.optim.lr_scheduler.LRScheduler",
        "torch.optim.lr_scheduler._LRScheduler",
        "torch.utils.data.Sampler",
        "torch.autograd.Function",
        "torch.autograd.function.Function",
    }
)

# Nothing in these libraries switches grad mode: a method of a class with one of their classes as base is as good as a
# function, and so is a function below one of their decorators; their context managers change nothing. Most of them
# never import torch (their declared dependencies on the package index, and their sources).
PLAIN_LIBRARIES = sys.stdlib_module_names | frozenset(
    """absl aiohttp alive_progress attr attrs backoff beartype bentoml bottle celery click comet_ml cv2 django
    enlighten fastapi fire flask future gradio gym gymnasium h5py hydra jaxtyping joblib jsonlines line_profiler
    lmdb loguru luigi matplotlib mlflow modal neptune netCDF4 nltk numba numpy omegaconf open3d optuna pandas PIL
    prefect progressbar prometheus_client psutil pyarrow pydantic pytest rasterio ray requests retry rich sacred
    sanic six sklearn soundfile spaces sqlalchemy starlette streamlit tenacity threadpoolctl tifffile tornado tqdm
    typeguard typer wandb yaspin zarr""".split()
)

# They run the function that they are given as a program or a process of its own: with grad on, which is
# torch's default in each thread (PyTorch notes, "Autograd mechanics", on locally disabling gradient computation).
LAUNCHERS = frozenset(
    {
        "torch.multiprocessing.spawn",
        "torch.multiprocessing.Process",
        "torch_xla.distributed.xla_multiprocessing.spawn",
        "multiprocessing.Process",
        "accelerate.notebook_launcher",
        "accelerate.launchers.notebook_launcher",
        "detectron2.engine.launch",
        "absl.app.run",
        "fire.Fire",
        "fire.core.Fire",
        "typer.run",
        "wandb.agent",
        # gradio/blocks.py, `call_function`: a plain function runs in a thread of a pool (`anyio.to_thread.run_sync`).
        "gradio.Interface",
        "gradio.ChatInterface",
    }
)

# Decorators that leave grad mode alone.
NEUTRAL_DECORATORS = frozenset(
    {
        "staticmethod",
        "classmethod",
        "property",
        "gin.configurable",
        "gin.register",
        "torch.cuda.amp.autocast",
        "torch.autocast",
        "torch.amp.autocast",
        "torch.cuda.amp.custom_fwd",
        "torch.cuda.amp.custom_bwd",
        "torch.jit.ignore",
        "torch.jit.export",
        "torch.jit.unused",
        "torch.compile",
        "torch.compiler.disable",
        "torch._dynamo.disable",
        "typing_extensions.override",
        "torch.distributed.elastic.multiprocessing.errors.record",
    }
)

# Methods by which values are logged or shown; none of them differentiates or keeps the graph of its argument.
# (wandb, tensorboard SummaryWriter, logging, tqdm, Lightning self.log: each detaches or converts.)
CONSUMING_METHODS = frozenset(
    {
        "log",
        "log_dict",
        "log_metrics",
        "log_metric",
        "add_scalar",
        "add_scalars",
        "add_histogram",
        "info",
        "debug",
        "warning",
        "error",
        "write",
        "set_postfix",
        "set_postfix_str",
        "set_description",
        "print",
        "format",
        "track",
    }
)
# Functions that consume values without differentiating or keeping them.
CONSUMING_FUNCTIONS = frozenset(
    """print len str repr format isinstance type id hash bool int float range any all hasattr callable round wandb.log
    json.dumps json.dump pickle.dump torch.save math.isnan math.isfinite math.sqrt math.exp math.log""".split()
)
CONSUMING_MODULES = (
    "numpy.",
    "math.",
    "logging.",
    "json.",
    "pickle.",
    "pandas.",
    "matplotlib.",
    "sklearn.",
    "wandb.",
    "scipy.",
    "time.",
    "os.",
    "sys.",
    "warnings.",
    "csv.",
    "statistics.",
    "random.",
    "datetime.",
    "torch.cuda.",
    "torch.distributed.",
    "torch.testing.",
    "tensorboardX.",
)


def is_of_plain_library(name: str) -> bool:
    """Whether a qualified name is one of a library in which nothing switches grad mode."""
    package, dot, _ = name.partition(".")
    return bool(dot) and package in PLAIN_LIBRARIES
