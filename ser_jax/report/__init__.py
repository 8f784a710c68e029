"""Reports on finished runs and ablations: tables and figures, drawn from their files.

Start with `rebuild`, then `run_report`, or `grid_report` and what leads to it: `evidence` (what the
runs left), `scores` and `claims` (numbers and verdicts), `analysis` (both), `overview`,
`provenance` and the `*_sections` (plain data), `page` and its templates.
"""
