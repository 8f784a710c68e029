"""A grid of runs, which `ablate` starts and resumes.

`schedule` decides which runs train together: `groups` trains those, `workers` the others one by
one.
"""
