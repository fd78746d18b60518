"""Services that run only on the Raft leader: planning, recording, reports, answers to users.

Invariants: nothing is acknowledged before the log holds it, and no completion is proposed before its chunk lies on two
nodes; everything in memory here (fleet, estimates) can be lost, and the next coordinator makes it again.
"""

from mesh.coordinator.service import TestCoordinator

__all__ = ["TestCoordinator"]
