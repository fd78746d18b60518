"""Reports for people and for other tools, made of a finished run's report: one module a kind (docs/reports.md)."""
