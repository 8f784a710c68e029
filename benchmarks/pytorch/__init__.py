"""The same networks in PyTorch: the reference of the tests and the baseline of the benchmarks."""
