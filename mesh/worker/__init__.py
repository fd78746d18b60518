"""The worker: what takes leases and runs tests on this host."""
