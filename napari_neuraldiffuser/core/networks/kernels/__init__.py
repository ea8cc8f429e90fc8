"""One function per operation: the compiled kernel where there is one, else the same in plain PyTorch."""
