"""What this machine, its JAX and its libraries are and do; each file stands for itself.

Before JAX computes: `environment`, `jax_defaults`, `cpu_devices`, `allocator`, `compile_cache`.
"""
