"""The sections of `gpu.py`, a module with `measure(context)` each, run in processes of their own."""
