"""What others watch a node by: its metrics for Prometheus, and the traces of the runs that it coordinated."""
