"""Identifiers. Identity is content or log position, never random (docs/architecture.md)."""

from typing import NewType

PeerId = NewType("PeerId", str)
"""A libp2p peer ID in base58: the identity of a node."""

Cid = NewType("Cid", str)
"""A CIDv1 in base32, lower case ("bafy…", "bafk…")."""

RunId = NewType("RunId", int)
"""The log index of the run's submission; written in decimal for people."""

NO_RUN = RunId(0)

LeaseId = NewType("LeaseId", int)
"""The log index of the lease's grant: larger means granted later, so it is a fencing token."""

TestIndex = NewType("TestIndex", int)
"""A test's place in its run's manifest, from 0."""
