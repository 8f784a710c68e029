"""Forms of layers that are faster than the plain ones, with the same parameters and numbers."""
