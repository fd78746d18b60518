"""The replicated state: what every voter computes from the log, entry by entry, and what it means to people."""
