"""The group that keeps the log, in words and as a table."""

from typing import Any

import pytest

from mesh.raft.raft import PeerStatus, RaftStatus, RoleName
from mesh.views.raft import no_document, raft_document, raft_text
from protocols.ids import PeerId
from protocols.presence import Presence, Role
from protocols.raft import LOG_FORMAT_CAPABILITY, LOG_FORMAT_NEWEST, Configuration

A, B, C, D = (PeerId(f"peer-{letter}") for letter in "ABCD")

HERE = PeerStatus(match=200, active=True, silent_ticks=1, flow="replicating")
BEHIND = PeerStatus(match=0, active=True, silent_ticks=1, flow="probing")
SILENT = PeerStatus(match=90, active=False, silent_ticks=240, flow="probing")
INSTALLING = PeerStatus(match=0, active=True, silent_ticks=1, flow="installing")


def presence(peer: PeerId, reads: int | None) -> Presence:
    capabilities = {} if reads is None else {LOG_FORMAT_CAPABILITY: reads}
    return Presence(peer, f"host-{peer[-1]}", Role.AUTO, 1, 0, (), 1, 0, False, capabilities, {}, (), ())


def status(
    peers: dict[PeerId, PeerStatus], configuration: Configuration, commit: int = 200, role: RoleName = RoleName.LEADER
) -> RaftStatus:
    leader = A if role is RoleName.LEADER else None
    return RaftStatus(A, role, 7, leader, commit, commit, 51, commit, 50, configuration, True, None, peers)


def shown(peers: dict[PeerId, PeerStatus], configuration: Configuration | None = None, **more: Any) -> dict[str, Any]:
    configuration = configuration or Configuration(voters=(A, B, C))
    presences = {peer: presence(peer, reads) for peer, reads in [(A, 2), (B, None), (C, 2)]}
    return raft_document("1000.x", status(peers, configuration, **more), 1, presences)


@pytest.mark.parametrize(
    ("peers", "configuration", "state", "survived", "said"),
    [
        ({B: HERE, C: HERE}, None, "ok", 1, ["1 more voter may fail, and the mesh goes on"]),
        ({}, Configuration(voters=(A,)), "ok", 0, ["one voter: the mesh waits whenever it is away"]),
        ({B: HERE, C: SILENT}, None, "degraded", 0, ["no voter may fail now", "voter host-C peer-C has been"]),
        ({B: SILENT, C: SILENT}, None, "no quorum", 0, ["fewer than a majority of 3 voters", "silent for 12 s"]),
        ({B: HERE, C: BEHIND}, None, "degraded", 1, ["1 more voter", "host-C peer-C is 200 entries behind"]),
        ({B: HERE, C: INSTALLING}, None, "degraded", 1, ["1 more voter", "is being sent a snapshot, 200 entries"]),
        (
            {B: HERE, C: SILENT, D: HERE},
            Configuration(voters=(A, B, D), outgoing=(A, B, C)),
            "degraded",
            0,
            ["no voter may fail now", "outgoing host-C", "changing its voters (joint consensus)"],
        ),
        ({B: SILENT, C: HERE}, Configuration(voters=(A, C), learners=(B,)), "degraded", 0, ["no voter", "learner"]),
    ],
)
def test_health_is_told_in_words(
    peers: dict[PeerId, PeerStatus],
    configuration: Configuration | None,
    state: str,
    survived: int,
    said: list[str],
) -> None:
    document = shown(peers, configuration)
    health = document["health"]
    assert (health["state"], health["failures_survived"]) == (state, survived)
    assert health["quorum"] == (state != "no quorum")
    reasons = "\n".join(health["reasons"])
    for words in said:
        assert words in reasons
    assert all(reason in raft_text(document) for reason in health["reasons"])


def test_members_and_their_progress() -> None:
    document = shown({B: HERE, C: SILENT})
    assert document["format"] == {"in_force": 1, "oldest": 1, "newest": LOG_FORMAT_NEWEST}
    a, b, c = document["members"]
    assert (a["leader"], a["match"], a["silent_seconds"], a["active"], a["reads_format"]) == (True, 200, None, True, 2)
    assert (b["match"], b["behind"], b["silent_seconds"], b["flow"]) == (200, 0, 0.05, "replicating")
    assert (b["reads_format"], c["silent_seconds"], c["behind"]) == (1, 12.0, 110)
    text = raft_text(document)
    assert "log        51 to 200, snapshot at 50" in text
    assert "leader     host-A peer-A, term 7" in text
    assert [line.split()[0] for line in text.splitlines()[-3:]] == ["host-A", "host-B", "host-C"]


def test_a_follower_tells_what_it_knows_and_says_so() -> None:
    document = shown({}, role=RoleName.FOLLOWER)
    assert (document["by_leader"], document["leader"], document["health"]["quorum"]) == (False, None, False)
    assert all(
        member["match"] is member["active"] is member["silent_seconds"] is None for member in document["members"]
    )
    assert "no leader answers; below is what the node that was asked knows itself" in raft_text(document)


def test_an_older_leader_that_does_not_tell_is_a_quorum_all_the_same() -> None:
    following = status({}, Configuration(voters=(A, B, C)), role=RoleName.FOLLOWER)
    health = raft_document("1000.x", following, 1, {}, "the coordinator is of an old version", led=True)["health"]
    assert (health["state"], health["quorum"]) == ("unknown", True)
    assert health["reasons"][0].startswith("the coordinator is of an old version; below is what")


def test_a_node_without_a_log_says_that_it_knows_nothing() -> None:
    document = no_document("1000.x", A, "no coordinator answers")
    assert raft_text(document) == "no coordinator answers; this node holds no log, so that it knows nothing itself"
