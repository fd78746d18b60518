"""Membership: the life of this node in a mesh, and what its coordinator does for the group."""

from mesh.membership.service import Membership

__all__ = ["Membership"]
