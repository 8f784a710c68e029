"""The networks trained from scratch, a file for each, and the layers that they share.

Read `layers`, `conv` and `recurrent`, then any network. A new one needs a file here, an entry in
`systems.networks` and its name in `config.model`.
"""
