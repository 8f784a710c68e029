"""What a person looks at after a run or an ablation: tables and figures, drawn from its files.

Read `rebuild`, then `run_report`, or `grid_report` and the way to it: `evidence`, `scores`,
`claims`, `analysis`, the `*_sections`, `document`, `rendering`.
"""
