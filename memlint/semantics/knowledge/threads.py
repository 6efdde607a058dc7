"""What runs a function in another thread. Rows with their sources."""

from __future__ import annotations

# Callables that start (or queue) a function in another thread -> the position and the keyword of the function, and
# the position from which its arguments follow (-1: they stand in the keyword `args`).
STARTERS: dict[str, tuple[int, str, int]] = {
    "threading.Thread": (1, "target", -1),
    "threading.Timer": (1, "function", -1),
    "asyncio.to_thread": (0, "func", 1),
    "anyio.to_thread.run_sync": (0, "func", 1),
    "starlette.concurrency.run_in_threadpool": (0, "func", 1),
    "fastapi.concurrency.run_in_threadpool": (0, "func", 1),
    "torch.multiprocessing.pool.ThreadPool.apply_async": (0, "func", -1),
}
# Methods of executors and event loops that do (concurrent.futures, asyncio).
STARTING_METHODS: dict[str, tuple[int, str, int]] = {
    "submit": (0, "fn", 1),
    "map": (0, "fn", -1),
    "run_in_executor": (1, "func", 2),
}
# Those of them that are called so nowhere else.
QUEUEING_METHODS = frozenset({"run_in_executor"})
# Without one of these words in the file, `submit` and `map` are those of something else.
EXECUTOR_WORDS = frozenset({"ThreadPoolExecutor", "ThreadPool", "run_in_executor"})
# Processes; a pool whose threads begin with a function that may switch grad mode off.
OTHER_POOL_WORDS = frozenset({"ProcessPoolExecutor", "initializer"})
# A thread of its own whose `run` is overridden.
THREAD_CLASSES = frozenset({"threading.Thread", "threading.Timer", "PyQt5.QtCore.QThread", "PySide6.QtCore.QThread"})

# FastAPI runs a plain `def` handler in a thread pool (FastAPI documentation, "Concurrency and async / await");
# Flask's own server gives each request a thread (`threaded=True` by default since 1.0).
POOLED_APPS = frozenset({"fastapi.FastAPI", "fastapi.APIRouter", "fastapi.routing.APIRouter"})
THREADED_APPS = frozenset({"flask.Flask", "flask.Blueprint", "flask.app.Flask"})
ROUTE_DECORATORS = frozenset({"get", "post", "put", "delete", "patch", "route", "api_route", "head", "options"})
# Gradio runs plain functions in a thread pool (gradio.blocks.Blocks.call_function).
CALLBACK_CLASSES = frozenset({"gradio.Interface", "gradio.ChatInterface"})

# Code that mentions one of these wants a graph.
EXEMPTING_WORDS = frozenset({"enable_grad", "requires_grad", "requires_grad_", "backward"})

# What a model is called where nothing else is known of it.
MODEL_WORDS = frozenset({"model", "net", "network", "encoder", "decoder", "backbone", "generator", "unet", "vae"})
