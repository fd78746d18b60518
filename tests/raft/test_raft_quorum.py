"""Quorum arithmetic against brute force: a decision holds if a majority of each set of voters backs it."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from mesh.raft import quorum
from mesh.raft.quorum import VoteResult
from protocols.ids import PeerId
from protocols.raft import Configuration

PEERS = [PeerId(name) for name in "abcdefg"]
peers = st.lists(st.sampled_from(PEERS), unique=True, max_size=5).map(tuple)
configurations = st.builds(Configuration, voters=peers, outgoing=peers, learners=peers)


def backs(configuration: Configuration, peers: set[PeerId]) -> bool:
    """The definition, word for word."""
    sets = [half for half in (configuration.voters, configuration.outgoing) if half]
    return bool(sets) and all(sum(peer in peers for peer in half) * 2 > len(half) for half in sets)


@given(configurations, st.dictionaries(st.sampled_from(PEERS), st.integers(0, 6)))
def test_the_agreed_value_is_the_largest_that_a_quorum_reached(
    configuration: Configuration, values: dict[PeerId, int]
) -> None:
    reached = [v for v in range(1, 8) if backs(configuration, {peer for peer in values if values[peer] >= v})]
    assert quorum.agreed(configuration, values) == max(reached, default=0)


@given(configurations, st.sets(st.sampled_from(PEERS)))
def test_quorums(configuration: Configuration, present: set[PeerId]) -> None:
    assert quorum.has_quorum(configuration, present) == backs(configuration, present)


@given(configurations, st.dictionaries(st.sampled_from(PEERS), st.booleans(), max_size=5))
def test_an_election_is_decided_as_soon_as_no_answer_can_change_it(
    configuration: Configuration, votes: dict[PeerId, bool]
) -> None:
    silent = [peer for peer in quorum.voters(configuration) if peer not in votes]
    outcomes = set()
    for answers in product([True, False], repeat=len(silent)):
        final = votes | dict(zip(silent, answers, strict=True))
        outcomes.add(backs(configuration, {peer for peer, granted in final.items() if granted}))
    expected = {
        frozenset({True}): VoteResult.WON,
        frozenset({False}): VoteResult.LOST,
        frozenset({True, False}): VoteResult.PENDING,
    }[frozenset(outcomes)]
    assert quorum.vote_result(configuration, votes) is expected


@given(peers.filter(bool), peers, st.sets(st.sampled_from(PEERS)), st.sets(st.sampled_from(PEERS)))
def test_quorums_of_neighbouring_configurations_meet(
    old: tuple[PeerId, ...], new: tuple[PeerId, ...], one: set[PeerId], other: set[PeerId]
) -> None:
    """Old and joint, joint and new: that is why a change goes through the joint one."""
    joint = Configuration(voters=new, outgoing=old)
    for plain in (Configuration(voters=old), Configuration(voters=new)):
        if quorum.has_quorum(plain, one) and quorum.has_quorum(joint, other):
            assert one & other


def test_members_and_voters_come_in_order_once() -> None:
    configuration = Configuration(
        voters=(PeerId("c"), PeerId("a")), outgoing=(PeerId("b"), PeerId("a")), learners=(PeerId("d"), PeerId("b"))
    )
    assert quorum.voters(configuration) == ("a", "b", "c")
    assert quorum.members(configuration) == ("a", "b", "c", "d")
