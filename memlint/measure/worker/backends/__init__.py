"""The ways to run code that says `cuda`: one module a backend."""
