"""Forms of layers that are faster than the plain ones, with the same parameters and numbers.

Read `models.conv` and `models.recurrent` first, which choose among them by `models.forms`.
"""
