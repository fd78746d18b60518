"""HTTP over one node's view of the mesh: what the commands, the dashboard and scripts talk to (docs/api.md)."""
