"""The child process of a measurement: the only part of memlint that imports torch."""
