"""The scheduler: from the replicated state and the fleet as it is seen now to a plan, as a value. Pure."""
