"""Recordings to a corpus in memory: its sources, its store on disk, its labels and its splits.

Read `corpus`, then the way of a clip: `sources/`, `store` with `intake` and `builder`,
`stored_clips`, `assembly` with `labels`. Splits are `splits`, `speakers`, `leaks` and `protocols`.
"""
