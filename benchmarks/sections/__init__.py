"""The sections of `gpu.py`: each a module with `measure(context)`, run in a process group of its own."""
