"""What a node keeps on its disk: the log and its snapshot, and a worker's unacknowledged results."""
