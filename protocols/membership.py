"""How a mesh is born, grows and merges. Each request is answered; each may be repeated.

A mesh is named by its founding: "NANOSECONDS.PEER". So of two names the smaller one, as a pair, is the elder mesh.
"""

from protocols.codec import message
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId

PROTOCOL = "/mesh/membership/1.0.0"


def mesh_name(nanoseconds: int, founder: PeerId) -> str:
    return f"{nanoseconds}.{founder}"


def mesh_age(mesh: str) -> tuple[int, str]:
    """What meshes are ordered by: the elder one is smaller."""
    nanoseconds, _, founder = mesh.partition(".")
    if not nanoseconds.isdecimal() or not founder:
        raise RemoteProtocolError(f"not the name of a mesh: {mesh[:80]!r}")
    return int(nanoseconds), founder


@message("b.join")
class Join:
    """any node -> coordinator: take me into the group as a learner, if there is room."""

    mesh: str


@message("b.joined")
class Joined:
    """The node is in the group, or (`member` false) the group needs no more: it works without a log."""

    mesh: str
    member: bool


@message("b.leave")
class Leave:
    """member -> coordinator: take me out of the group; I am about to stop."""

    mesh: str


@message("b.left")
class Left:
    """The node is out of the group, by a committed entry."""


@message("b.refused")
class NotHere:
    """Not done. `coordinator` and `mesh` tell who to ask, when that is known."""

    reason: str
    mesh: str = ""
    coordinator: PeerId | None = None


MEMBERSHIP_MESSAGES = (Join, Joined, Leave, Left, NotHere)
