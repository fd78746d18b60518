"""The group that keeps the log, as a document and as text: who is in it, how far each is, and whether all is well.

Health is told in words, each a sentence that names what it is about: whether there is a quorum, how many more members
may fail, who is behind or silent. Only a leader knows of others; a document by another member says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.autopilot import LAG_ENTRIES_MAX, reads_format
from mesh.raft.options import TICK_SECONDS
from mesh.raft.raft import RaftStatus, RoleName
from mesh.views import human
from protocols.ids import PeerId
from protocols.presence import Presence
from protocols.raft import LOG_FORMAT_NEWEST, LOG_FORMAT_OLDEST, Configuration

NAME_CHARS = 28


def raft_document(
    mesh: str,
    status: RaftStatus,
    log_format: int,
    presences: Mapping[PeerId, Presence],
    trouble: str = "",
    led: bool = False,
) -> dict[str, Any]:
    """`presences` are of the nodes that somebody tells of; `trouble` is why no leader's view is to be had, and `led`
    whether there is a leader all the same, whose version does not tell."""
    configuration = status.configuration
    leads = status.role is RoleName.LEADER
    members = [_member(peer, status, presences.get(peer)) for peer in _members(configuration)]
    document: dict[str, Any] = {
        "mesh": mesh,
        "seen_by": status.peer,
        "by_leader": leads,
        "role": status.role.value,
        "term": status.term,
        "leader": status.leader,
        "commit": status.commit,
        "applied": status.applied,
        "first_index": status.first_index,
        "last_index": status.last_index,
        "snapshot_index": status.snapshot_index,
        "configuration": {
            "voters": list(configuration.voters),
            "outgoing": list(configuration.outgoing),
            "learners": list(configuration.learners),
            "joint": bool(configuration.outgoing),
            "committed": status.configuration_committed,
        },
        "transferring_to": status.transferee,
        "format": {"in_force": log_format, "oldest": LOG_FORMAT_OLDEST, "newest": LOG_FORMAT_NEWEST},
        "members": members,
    }
    return {**document, "health": _health(document, trouble, led)}


def no_document(mesh: str, peer: PeerId, trouble: str) -> dict[str, Any]:
    """Of a node without a log, while no coordinator answers."""
    reason = f"{trouble}; this node holds no log, so that it knows nothing itself"
    health = {"state": "no quorum", "quorum": False, "failures_survived": 0, "reasons": [reason]}
    return {"mesh": mesh, "seen_by": peer, "by_leader": False, "leader": None, "members": [], "health": health}


def _members(configuration: Configuration) -> list[PeerId]:
    return sorted({*configuration.voters, *configuration.outgoing, *configuration.learners})


def _member(peer: PeerId, status: RaftStatus, presence: Presence | None) -> dict[str, Any]:
    configuration = status.configuration
    seen = status.peers.get(peer)
    me = peer == status.peer
    leads = status.role is RoleName.LEADER
    role = "voter" if peer in configuration.voters else "outgoing" if peer in configuration.outgoing else "learner"
    return {
        "peer": peer,
        "name": presence.name if presence else "",
        "role": role,
        "leader": peer == status.leader,
        "match": status.last_index if me and leads else seen.match if seen else None,
        "behind": None if seen is None else max(0, status.commit - seen.match),
        "active": (True if me else seen.active if seen else None) if leads else None,
        "silent_seconds": round(seen.silent_ticks * TICK_SECONDS, 2) if seen else None,
        "flow": seen.flow if seen else None,
        "reads_format": reads_format(presence) if presence else None,
    }


def _health(document: Mapping[str, Any], trouble: str, led: bool) -> dict[str, Any]:
    """`state`: "ok", "degraded" (works, but somebody is missing or behind), "no quorum", or "unknown" (works)."""
    if not document["by_leader"]:
        reason = f"{trouble or 'no leader answers'}; below is what the node that was asked knows itself"
        state = "unknown" if led else "no quorum"
        return {"state": state, "quorum": led, "failures_survived": 0, "reasons": [reason]}
    spare = _failures_survived(document)
    reasons = [sentence for member in document["members"] for sentence in _troubles(member)]
    if document["configuration"]["joint"]:
        reasons.append("the group is changing its voters (joint consensus): majorities of both sets are needed")
    degraded = bool(reasons)
    voters = len(document["configuration"]["voters"])
    if spare < 0:
        state = "no quorum"
        reasons.insert(0, f"fewer than a majority of {human.plural(voters, 'voter')} were heard of lately")
    else:
        state = "degraded" if degraded else "ok"
        reasons.insert(0, _margin(spare, voters))
    return {"state": state, "quorum": spare >= 0, "failures_survived": max(0, spare), "reasons": reasons}


def _margin(spare: int, voters: int) -> str:
    if voters == 1:
        return "one voter: the mesh waits whenever it is away (three nodes that may vote are safer)"
    if spare == 0:
        return "no voter may fail now: with one more gone, nothing is committed until it is back"
    return f"{human.plural(spare, 'more voter')} may fail, and the mesh goes on"


def _failures_survived(document: Mapping[str, Any]) -> int:
    """Voters that may fail beside those that have; below 0 there is no majority. In joint consensus of either set."""
    active = {member["peer"] for member in document["members"] if member["active"]}
    sets = [document["configuration"]["voters"], document["configuration"]["outgoing"]]
    return min(sum(peer in active for peer in voters) - (len(voters) // 2 + 1) for voters in sets if voters)


def _troubles(member: Mapping[str, Any]) -> list[str]:
    who = f"{member['role']} {_name(member)}"
    if member["active"] is False:
        return [f"{who} has been silent for {human.duration(member['silent_seconds'])}"]
    if member["flow"] == "installing":
        return [f"{who} is being sent a snapshot, {human.entries(member['behind'])} behind"]
    if member["behind"] is not None and member["behind"] > LAG_ENTRIES_MAX:
        return [f"{who} is {human.entries(member['behind'])} behind"]
    return []


def _name(member: Mapping[str, Any]) -> str:
    name = human.short(str(member.get("name") or ""), NAME_CHARS)
    return f"{name} {human.peer(str(member['peer']))}".strip()


def raft_text(document: Mapping[str, Any]) -> str:
    """`mesh raft`."""
    if not document["members"]:
        return "\n".join(document["health"]["reasons"])
    configuration, form, health = document["configuration"], document["format"], document["health"]
    leader = next((_name(member) for member in document["members"] if member["leader"]), "none")
    joint = " (joint: the voters are changing)" if configuration["joint"] else ""
    rows: Sequence[tuple[str, str]] = [
        ("mesh", human.clean(document["mesh"])),
        ("health", health["state"]),
        *(("", reason) for reason in health["reasons"]),
        ("leader", f"{leader}, term {document['term']}"),
        ("log", f"{document['first_index']} to {document['last_index']}, snapshot at {document['snapshot_index']}"),
        ("committed", f"{document['commit']}, applied {document['applied']}"),
        ("voters", f"{len(configuration['voters'])}, {human.plural(len(configuration['learners']), 'learner')}{joint}"),
        ("format", f"{form['in_force']} in force; {form['oldest']} to {form['newest']} can be read here"),
    ]
    header = ("MEMBER", "ROLE", "MATCH", "BEHIND", "SILENT", "FLOW", "READS")
    cells = [
        (
            _name(member),
            member["role"] + (", leader" if member["leader"] else ""),
            _cell(member["match"]),
            _cell(member["behind"]),
            "-" if member["silent_seconds"] is None else human.duration(member["silent_seconds"]),
            member["flow"] or "-",
            _cell(member["reads_format"]),
        )
        for member in document["members"]
    ]
    head = "\n".join(f"{name:<11}{text}" for name, text in rows)
    return f"{head}\n\n{human.table(header, cells, right=(2, 3, 4, 6))}"


def _cell(number: int | None) -> str:
    return "-" if number is None else str(number)
