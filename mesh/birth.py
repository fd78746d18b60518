"""The birth of a mesh, as pure decisions: found, join or wait; and who gives way when two were born apart.

A node without a log looks around for `WINDOW_SECONDS`. A mesh that it sees, it joins. If it sees none, then among
connected nodes without a mesh only the one with the lowest ID founds; the others wait and join it: so nodes that start
together form one mesh, with nobody told who founds. Should two be born all the same (before they could see each
other), one gives way. Never both, since the number of a mesh's runs only grows: a mesh gives way only while it has no
run (its log's order decides that), and to one that has runs, or else to its elder.

Rejected: founding by agreement (needs a consensus before there is one), and merging two logs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId
from protocols.membership import mesh_age
from protocols.presence import Presence, Role

WINDOW_SECONDS = 1.2
"""From a node's start: long enough for discovery on a local network, and for a presence from everyone found."""

QUIET_SECONDS = 0.4
"""Since somebody connected; his presence may be on its way."""

TARGET_SECONDS = 3.0
"""How long a node waits for those whom it was told to join."""

HEADING_SECONDS = 10.0
"""How long a node whose mesh gave way looks for the other one, before it takes what it finds."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a node without a log sees."""

    me: PeerId
    elapsed: float
    """Seconds since it looks around."""
    quiet: float
    """Seconds since the last connection came."""
    neighbours: tuple[Presence, ...]
    """Of connected nodes that are not leaving."""
    strangers: int
    """Connections without a presence yet."""
    expect: int = 1
    targets: tuple[PeerId, ...] = ()
    """Nodes that it was told to join."""
    heading: str = ""
    """The mesh that its former mesh gave way to."""
    former: frozenset[str] = frozenset()
    """Meshes that it left, since they gave way."""
    solitary: bool = False


@dataclass(frozen=True, slots=True)
class JoinMesh:
    mesh: str
    coordinator: PeerId


@dataclass(frozen=True, slots=True)
class FoundMesh:
    pass


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str


Decision = JoinMesh | FoundMesh | Wait


def decide(scene: Scene) -> Decision:
    if scene.solitary:
        return FoundMesh()
    meshes = meshes_of(scene.neighbours, scene.former)
    if meshes:
        mesh = _preferred(scene, meshes)
        coordinator = coordinator_of(scene.neighbours, mesh)
        if scene.heading and mesh != scene.heading and scene.elapsed < HEADING_SECONDS:
            return Wait(f"looking for mesh {scene.heading}")
        return JoinMesh(mesh, coordinator) if coordinator else Wait(f"mesh {mesh} has no coordinator now")
    if scene.elapsed < (HEADING_SECONDS if scene.heading else WINDOW_SECONDS):
        return Wait("looking for a mesh")
    if (scene.quiet < QUIET_SECONDS or scene.strangers) and scene.elapsed < WINDOW_SECONDS + TARGET_SECONDS:
        return Wait("getting to know who just connected")
    missing = set(scene.targets) - {presence.peer for presence in scene.neighbours}
    if missing and len(missing) == len(set(scene.targets)) and scene.elapsed < TARGET_SECONDS:
        return Wait("no node that was named to join is reached yet")
    here = 1 + sum(presence.role is not Role.CLIENT for presence in scene.neighbours)
    if here < scene.expect:
        return Wait(f"{here} of {scene.expect} expected nodes are here")
    lower = [each.peer for each in scene.neighbours if each.role.votes and not each.mesh and each.peer < scene.me]
    return Wait(f"{min(lower)} founds the mesh") if lower else FoundMesh()


def meshes_of(presences: tuple[Presence, ...], without: frozenset[str] = frozenset()) -> dict[str, int]:
    """Meshes that somebody here holds a log of, and the runs in them. What has no proper name is no mesh."""
    found: dict[str, int] = {}
    for presence in presences:
        if presence.raft and presence.mesh not in without and is_mesh(presence.mesh):
            found[presence.mesh] = max(presence.runs, found.get(presence.mesh, 0))
    return found


def is_mesh(name: str) -> bool:
    try:
        mesh_age(name)
    except RemoteProtocolError:
        return False
    return True


def eldest(meshes: Mapping[str, int]) -> str:
    """One with runs before one without, then the eldest."""
    return min(meshes, key=lambda mesh: (meshes[mesh] == 0, mesh_age(mesh)))


def _preferred(scene: Scene, meshes: Mapping[str, int]) -> str:
    if scene.heading in meshes:
        return scene.heading
    named = {each.mesh: meshes[each.mesh] for each in scene.neighbours if each.peer in scene.targets and each.raft}
    return eldest({mesh: runs for mesh, runs in named.items() if mesh in meshes} or meshes)


def coordinator_of(presences: tuple[Presence, ...], mesh: str, term: int = 0) -> PeerId | None:
    """Who coordinates this mesh, from `term` on: the newest claim about a node that is here."""
    here = {presence.peer for presence in presences}
    claims = [
        (presence.term, presence.coordinator == presence.peer, presence.coordinator)
        for presence in presences
        if presence.mesh == mesh and presence.coordinator in here and presence.term >= term
    ]
    return max(claims)[2] if claims else None


def yields_to(mesh: str, runs: int, others: Mapping[str, int]) -> str:
    """Which of `others` (each with its runs) this mesh gives way to; empty if it stays."""
    stronger = {
        other: theirs for other, theirs in others.items() if runs == 0 and (theirs or mesh_age(other) < mesh_age(mesh))
    }
    return eldest(stronger) if stronger else ""


def conflicts_with(runs: int, others: Mapping[str, int]) -> tuple[str, ...]:
    """Meshes that have runs, as this one has: both go on, and nobody may be silent about it."""
    return tuple(sorted(other for other, theirs in others.items() if theirs and runs))
