"""The commands: one module per verb, each with `HELP`, `configure(parser)` and `run(args) -> int`.

They talk HTTP to a running node (mesh/api) and know nothing of its insides. A module imports what it needs where it
needs it: `mesh --help` and a wrong flag must not wait for trio, libp2p or rich.
"""
