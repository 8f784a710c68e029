"""What this machine, its JAX and its libraries are and do: cores, compilers, defaults, workers."""
