"""Training by several processes, on JAX's own runtime.

Read `launchers`, then `supervisor`, `processes` and `sharing`.
"""
