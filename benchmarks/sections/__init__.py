"""The sections of `gpu.py`, a module with `measure(context)` each, in processes of their own."""
