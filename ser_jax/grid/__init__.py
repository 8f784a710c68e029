"""A grid of runs, which `ablate` begins and resumes.

`schedule` decides which run together: `groups` trains those, `workers` the others one by one.
"""
