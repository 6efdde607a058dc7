"""What a measurement shows: for a terminal, for programs, for a browser, and for PyTorch's own memory viewer."""
