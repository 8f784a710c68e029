"""The networks trained from scratch, a file for each, and the layers that they share.

Read `layers`, `conv` and `recurrent`, then any network; `systems.networks` names them for a run.
"""
