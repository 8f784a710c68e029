"""A grid of runs: which run together in one program, which one by one, and how it is resumed."""
