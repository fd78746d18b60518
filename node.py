"""One program on every host: see mesh/cli."""
