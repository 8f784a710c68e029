"""Recordings to a corpus in memory: its sources, its store on disk, its labels and its splits.

Read `corpus`, then the way of a clip: `sources/`, `store` with `intake` and `builder`,
`stored_clips`, `assembly` (which pads) with `labels`. The test split is drawn in `splits`, with
`published_folds`, `speakers`, `cross_corpus`, `leaks` and `protocols` beside it.
"""
