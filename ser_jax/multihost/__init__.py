"""Training by several processes: how they meet, watch each other and share values.

Read `processes`, then `rendezvous`, `watch` and `sharing`.
"""
