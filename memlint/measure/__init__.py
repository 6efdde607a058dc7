"""The dynamic mode: run a target in a fresh process, record its device memory, say what holds it.

The parent (this package, less `worker`) never imports torch: it starts the worker, and works on the recording that
comes back.
"""
