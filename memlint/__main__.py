"""`python -m memlint`."""

from memlint.cli.main import main

main()
