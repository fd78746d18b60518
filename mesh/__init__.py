"""A distributed test runner: see docs/architecture.md for the layers and what may import what."""
