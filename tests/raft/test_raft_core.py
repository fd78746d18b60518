"""The core's face: what it refuses, what bounds it, what it comes back as after a restart."""

import random
from collections.abc import Sequence

import cbor2
import pytest

from mesh.raft import invariants
from mesh.raft.configuration import AddLearner, Promote
from mesh.raft.errors import ChangeRefused, LogLost, NotLeader, Overloaded
from mesh.raft.raft import Raft, RaftOptions, RoleName
from mesh.raft.ready import Configuration, Entry, EntryKind, HardState, ReadState, Ready, Snapshot
from protocols.codec import decode, encode
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.ids import PeerId
from protocols.raft import (
    CHUNK_BYTES_MAX,
    ENTRY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    RAFT_MESSAGES,
    AppendEntries,
    AppendReply,
    GroupMessage,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    Vote,
    VoteReply,
)

A, B, C = (PeerId("Qm" + letter * 50) for letter in "abc")
ALONE = Configuration(voters=(A,))
THREE = Configuration(voters=(A, B, C))


def core(
    configuration: Configuration = Configuration(),  # noqa: B008 - a frozen value
    *,
    options: RaftOptions = RaftOptions(),  # noqa: B008
    hard_state: HardState = HardState(),  # noqa: B008
    snapshot: Snapshot | None = None,
    entries: Sequence[Entry] = (),
) -> Raft:
    return Raft(
        peer=A,
        options=options,
        rng=random.Random(1),
        hard_state=hard_state,
        snapshot=snapshot,
        entries=entries,
        configuration=configuration,
    )


def drain(raft: Raft) -> list[Ready]:
    """Do everything that it wants."""
    done = []
    while raft.has_ready():
        done.append(raft.ready())
        raft.advance()
        invariants.check(raft)
    return done


def leading_alone(options: RaftOptions = RaftOptions()) -> Raft:  # noqa: B008
    raft = core(ALONE, options=options)
    drain(raft)
    raft.tick()
    drain(raft)
    assert raft.status().role is RoleName.LEADER
    return raft


def test_a_group_of_one_leads_at_its_first_tick_and_commits_what_it_saved() -> None:
    raft = leading_alone()
    index = raft.propose(b"x")
    ready = raft.ready()
    assert [entry.data for entry in ready.entries] == [b"x"]
    assert ready.committed == ()
    assert raft.status().commit == index - 1
    raft.advance()
    assert [entry.data for entry in raft.ready().committed] == [b"x"]


def test_founders_write_the_same_first_entry() -> None:
    raft, other = core(THREE), core(Configuration(voters=(C, A, B)))
    first, second = raft.ready(), other.ready()
    assert first.entries == second.entries
    assert first.entries[0].kind is EntryKind.CONFIGURATION
    assert first.hard_state == HardState(1, None, 0)
    again = core(hard_state=first.hard_state, entries=first.entries)
    assert again.status().voters == tuple(sorted((A, B, C)))
    assert not again.has_ready()


def test_a_log_that_lost_what_was_committed_is_refused() -> None:
    with pytest.raises(LogLost, match="the log ends at 1 although 5 entries were committed"):
        core(hard_state=HardState(1, None, 5), entries=[Entry(1, 1, EntryKind.NOOP, b"")])


def test_a_snapshot_saved_without_its_hard_state_raises_the_term() -> None:
    raft = core(hard_state=HardState(3, B, 2), snapshot=Snapshot(9, 5, THREE, b""))
    assert (raft.status().term, raft.status().commit, raft.status().last_index) == (5, 9, 9)
    assert raft.ready().hard_state == HardState(5, None, 9)


def test_who_does_not_lead_says_who_does() -> None:
    raft = core(THREE)
    for action in (lambda: raft.propose(b""), lambda: raft.propose_change(AddLearner(B)), lambda: raft.read_index(1)):
        with pytest.raises(NotLeader) as caught:
            action()
        assert caught.value.leader is None
    raft.step(B, Heartbeat(2, 0, 0))
    with pytest.raises(NotLeader, match=B) as caught:
        raft.propose(b"")
    assert caught.value.leader == B
    with pytest.raises(NotLeader):
        raft.transfer_leadership(C)
    raft.read_index(7)
    assert (B, ReadIndex(2, 7)) in raft.ready().messages_after_sync


def test_reads_of_a_follower_fail_with_its_leader_and_lost_ones_make_room() -> None:
    raft = core(THREE, options=RaftOptions(reads_max=2))
    raft.step(B, Heartbeat(2, 0, 0))
    for context in (3, 2, 1):
        raft.read_index(context)
    raft.step(B, ReadIndexReply(2, 3, 1))
    ready = raft.ready()
    assert (ready.reads, ready.reads_failed) == ((), (3,)), "an answer that comes after that is not wanted any more"
    raft.advance()
    raft.step(B, ReadIndexReply(2, 1, 0))
    raft.step(C, Heartbeat(3, 0, 0))
    ready = raft.ready()
    assert (ready.reads, ready.reads_failed) == ((ReadState(1, 0),), (2,))


def test_a_leader_bounds_the_reads_of_others_and_its_own() -> None:
    raft = leading_alone(RaftOptions(reads_max=2))
    raft.propose_change(AddLearner(B))
    drain(raft)
    raft.step(B, AppendReply(2, 3))
    raft.propose_change(Promote(B))
    drain(raft)
    for context in range(9):
        raft.step(B, ReadIndex(2, context))
    with pytest.raises(Overloaded):
        raft.read_index(1)
    heartbeat = next(message for to, message in raft.take_messages() if isinstance(message, Heartbeat))
    raft.step(B, HeartbeatReply(2, heartbeat.round))
    answers = [message for to, message in raft.ready().messages_after_sync]
    assert answers == [ReadIndexReply(2, 0, 3), ReadIndexReply(2, 1, 3)]


def test_a_read_never_joins_a_round_whose_heartbeats_have_left() -> None:
    raft = leading_alone()
    raft.propose_change(AddLearner(B))
    drain(raft)
    raft.step(B, AppendReply(2, 3))
    raft.propose_change(Promote(B))
    drain(raft)
    rounds = []
    for context in (1, 2):
        raft.read_index(context)
        rounds += [message.round for _, message in raft.take_messages() if isinstance(message, Heartbeat)]
    raft.step(B, HeartbeatReply(2, rounds[0]))
    assert raft.ready().reads == (ReadState(1, 3),)
    raft.advance()
    raft.step(B, HeartbeatReply(2, rounds[1]))
    assert raft.ready().reads == (ReadState(2, 3),)


def test_proposals_are_bounded_and_all_or_none() -> None:
    raft = leading_alone(RaftOptions(uncommitted_bytes_max=1000))
    with pytest.raises(LocalProtocolError, match=f"over the limit of {ENTRY_BYTES_MAX}"):
        raft.propose_many([b"x", bytes(ENTRY_BYTES_MAX + 1)])
    assert raft.propose_many([bytes(400), bytes(400)]) == [3, 4]
    with pytest.raises(Overloaded):
        raft.propose_many([b"x", bytes(300)])
    assert raft.status().last_index == 4
    drain(raft)
    assert raft.propose_many([b"x", bytes(300)]) == [5, 6]


def test_committed_entries_come_in_bounded_portions_in_order() -> None:
    raft = leading_alone(RaftOptions(committed_bytes_max=500))
    raft.propose_many([bytes(100)] * 10)
    portions = [[entry.index for entry in ready.committed] for ready in drain(raft) if ready.committed]
    assert portions == [[3, 4, 5], [6, 7, 8], [9, 10, 11], [12]]


def test_a_commit_index_alone_is_not_worth_a_sync() -> None:
    raft = leading_alone()
    raft.propose(b"x")
    first, second = drain(raft)
    assert first.must_sync
    assert [entry.data for entry in second.committed] == [b"x"]
    assert not second.must_sync


def test_one_ready_at_a_time() -> None:
    raft = core(ALONE)
    raft.ready()
    assert not raft.has_ready()
    with pytest.raises(AssertionError):
        raft.ready()
    raft.advance()
    with pytest.raises(AssertionError):
        raft.advance()


def test_two_leaders_of_a_term_are_never_followed() -> None:
    raft = core(THREE)
    raft.step(B, Heartbeat(2, 0, 0))
    with pytest.raises(RemoteProtocolError, match="both lead term 2"):
        raft.step(C, Heartbeat(2, 0, 0))
    alone = leading_alone()
    with pytest.raises(RemoteProtocolError, match="leads term 2 too"):
        alone.step(B, Heartbeat(2, 0, 0))
    with pytest.raises(LocalProtocolError):
        alone.step(A, Heartbeat(3, 0, 0))


def test_a_candidate_counts_each_voter_once_and_itself_when_saved() -> None:
    raft = core(Configuration(voters=(A, B, C, PeerId("d"), PeerId("e"))))
    drain(raft)
    raft.step(B, Heartbeat(2, 0, 0))
    raft.suspect(B)
    raft.suspect(C)
    while raft.status().role is RoleName.FOLLOWER:
        raft.tick()
    for peer in (B, B, C):
        raft.step(peer, PreVoteReply(3, granted=True))
    assert raft.status().role is RoleName.CANDIDATE
    for peer in (B, B, B, C):
        raft.step(peer, VoteReply(3, granted=True))
    assert raft.status().role is RoleName.CANDIDATE, "two of five, its own vote is not on disk"
    drain(raft)
    assert raft.status().role is RoleName.LEADER


def test_a_broken_connection_costs_no_leadership_but_what_was_under_way() -> None:
    raft = leading_alone()
    raft.propose_change(AddLearner(B))
    drain(raft)
    raft.step(B, AppendReply(2, 3))
    raft.propose_change(Promote(B))
    drain(raft)
    assert raft.status().peers[B].flow == "replicating"
    raft.suspect(B)
    raft.tick()
    assert raft.status().role is RoleName.LEADER
    assert raft.status().peers[B].flow == "probing"
    raft.take_messages()
    raft.step(B, HeartbeatReply(2, 0))
    assert [(message.previous_index, len(message.entries)) for _, message in raft.take_messages()] == [(3, 1)]
    for _ in range(20):
        raft.tick()
    assert raft.status().role is RoleName.FOLLOWER, "silence does"


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    raft = leading_alone()
    raft.propose_change(AddLearner(B))
    with pytest.raises(RemoteProtocolError, match="acknowledged entry 99"):
        raft.step(B, AppendReply(2, 99))


def test_strangers_change_nothing_at_a_leader() -> None:
    raft = leading_alone()
    before = raft.status()
    raft.step(C, AppendReply(2, 1))
    raft.step(C, Vote(9, 99, 9, transfer=False))
    assert raft.status() == before
    with pytest.raises(ChangeRefused, match="is no voter"):
        raft.transfer_leadership(C)


def test_a_snapshot_that_was_overtaken_is_not_made() -> None:
    raft = core()
    raft.step(B, InstallSnapshot(2, 20, 1, THREE, 0, b"state", done=True))
    assert raft.make_snapshot(15, b"") is None
    assert raft.make_snapshot(20, b"later") == Snapshot(20, 1, THREE, b"later")


def test_snapshots_are_bounded() -> None:
    raft = core(options=RaftOptions(snapshot_bytes_max=10))
    raft.step(B, InstallSnapshot(2, 20, 1, THREE, 0, bytes(10), done=False))
    with pytest.raises(RemoteProtocolError, match="over 10 bytes"):
        raft.step(B, InstallSnapshot(2, 20, 1, THREE, 10, b"x", done=True))


def test_the_largest_messages_fit() -> None:
    members = Configuration(*(tuple(PeerId(f"Qm{number:050}{kind}") for number in range(60)) for kind in "vol"))
    raft = leading_alone()
    raft.propose_change(AddLearner(B))
    drain(raft)
    raft.step(B, AppendReply(2, 2))
    raft.propose(bytes(ENTRY_BYTES_MAX))
    raft.propose_many([b""] * 20_000)
    sent = [message for ready in drain(raft) for _, message in (*ready.messages, *ready.messages_after_sync)]
    raft.step(B, AppendReply(2, 3))
    raft.step(B, AppendReply(2, 4))
    sent += [message for ready in drain(raft) for _, message in ready.messages]
    assert sum(len(message.entries) for message in sent if isinstance(message, AppendEntries)) > 10_000
    sent.append(InstallSnapshot(2**60, 2**60, 2**60, members, 2**60, bytes(CHUNK_BYTES_MAX), done=False))
    assert max(len(encode(GroupMessage("mesh" * 20, message))) for message in sent) < MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    "junk",
    [
        ["r.append", 1, 0, 0, [["r.entry", 2, 1, 0, b""]], 0],
        ["r.append", 1, -1, 0, [], 0],
        ["r.append", 1, 0, 0, [["r.entry", 1, 0, 0, b""]], 0],
        ["r.install", 1, 1, 1, ["r.configuration"], 0, bytes(CHUNK_BYTES_MAX + 1), True],
        ["r.install", 1, 0, 1, ["r.configuration"], 0, b"", True],
        ["r.vote", 1, 1],
    ],
)
def test_junk_is_a_remote_protocol_error(junk: list[object]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(cbor2.dumps(junk), *RAFT_MESSAGES)


def test_an_unreadable_configuration_changes_nothing() -> None:
    raft = core(THREE)
    drain(raft)
    before = raft.status()
    broken = Entry(2, 1, EntryKind.CONFIGURATION, b"junk")
    raft.step(B, Heartbeat(1, 0, 0))
    with pytest.raises(RemoteProtocolError):
        raft.step(B, AppendEntries(1, 1, 1, (broken,), 0))
    invariants.check(raft)
    assert raft.status().last_index == before.last_index


def test_options_that_can_not_work_are_refused() -> None:
    with pytest.raises(ValueError):
        RaftOptions(heartbeat_ticks=20, election_ticks=20)
    with pytest.raises(ValueError):
        RaftOptions(suspect_ticks=0)
