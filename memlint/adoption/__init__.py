"""Bringing memlint to a large code base: what is known already, what has changed, what is suppressed and why."""
