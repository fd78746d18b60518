"""How a mesh is born, grows and merges. Each request is answered; each may be repeated.

A mesh is named by its founding: "NANOSECONDS.PEER". So of two names the smaller one, as a pair, is the elder mesh.
"""

from protocols.codec import message
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId

PROTOCOL = "/mesh/membership/1.0.0"

PART_BYTES_MAX = 512 * 1024
"""Of a Raft message in one `RaftPart`."""

RAFT_MESSAGE_BYTES_MAX = 256 * 1024 * 1024
"""One Raft message, put together again: bounds what a snapshot may weigh."""


def mesh_name(nanoseconds: int, founder: PeerId) -> str:
    return f"{nanoseconds}.{founder}"


def mesh_age(mesh: str) -> tuple[int, str]:
    """What meshes are ordered by: the elder one is smaller."""
    nanoseconds, _, founder = mesh.partition(".")
    if not nanoseconds.isdecimal() or not founder:
        raise RemoteProtocolError(f"not the name of a mesh: {mesh[:80]!r}")
    return int(nanoseconds), founder


@message("b.raft")
class RaftPart:
    """One Raft message of a group, or a part of it: two meshes may share peers, and never mix their logs.

    The parts of a message follow each other: `part` counts from 0 to `parts` - 1.
    """

    mesh: str
    data: bytes
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts <= RAFT_MESSAGE_BYTES_MAX // PART_BYTES_MAX:
            raise ValueError(f"part {self.part} of {self.parts}")


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
