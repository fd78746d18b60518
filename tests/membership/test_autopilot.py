"""The autopilot as decisions, and as a closed loop over random groups."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.autopilot import GRACE_SECONDS, STABLE_SECONDS, VOTERS_MAX, Seat, decide
from mesh.raft.configuration import Demote, Promote, Remove, Replace, changed, left
from protocols.ids import PeerId
from protocols.raft import Configuration

GONE = GRACE_SECONDS


def seat(peer: str, host: str = "", kept_up_for: float = STABLE_SECONDS, dead_for: float = 0.0) -> Seat:
    return Seat(PeerId(peer), host or f"host-{peer}", dead_for == 0.0, False, dead_for, kept_up_for)


def group(voters: str, learners: str = "") -> Configuration:
    return Configuration(tuple(map(PeerId, voters)), (), tuple(map(PeerId, learners)))


def seats(*each: Seat, others: str = "") -> dict[PeerId, Seat]:
    return {one.peer: one for one in (*map(seat, others), *each)}


ME = PeerId("a")


def test_two_nodes_have_one_voter_three_have_three() -> None:
    assert decide(ME, group("a", "b"), seats(others="ab")) is None
    assert decide(ME, group("a", "bc"), seats(others="abc")) == Promote(PeerId("b"), (PeerId("c"),))
    assert decide(ME, group("ab", "c"), seats(others="abc")) == Promote(PeerId("c"))
    assert decide(ME, group("abc"), seats(others="abc")) is None
    assert decide(ME, group("abc", "d"), seats(others="abcd")) is None
    assert decide(ME, group("abc", "de"), seats(others="abcde")) == Promote(PeerId("d"), (PeerId("e"),))


def test_a_learner_must_have_kept_up_for_a_while() -> None:
    late = seat("c", kept_up_for=STABLE_SECONDS / 2)
    assert decide(ME, group("a", "bc"), seats(late, others="ab")) is None


def test_nothing_is_decided_in_joint_consensus() -> None:
    joint = replace(group("ab", "c"), outgoing=(ME,))
    assert decide(ME, joint, seats(others="abc")) is None


def test_a_dead_voter_is_replaced_after_the_grace_and_kept_without_a_spare() -> None:
    missing = seat("c", dead_for=GONE - 1)
    dead = seat("c", dead_for=GONE)
    assert decide(ME, group("abc", "d"), seats(missing, others="abd")) is None
    assert decide(ME, group("abc", "d"), seats(dead, others="abd")) == Replace(PeerId("c"), by=PeerId("d"))
    assert decide(ME, group("abc"), seats(dead, others="ab")) is None
    assert decide(ME, group("abcde"), seats(dead, others="abde")) == Remove(PeerId("c"))


def test_an_even_number_is_made_odd_once_all_are_well() -> None:
    assert decide(ME, group("ab"), seats(others="ab")) == Demote(PeerId("b"))
    draining = replace(seat("b"), draining=True)
    assert decide(ME, group("ab"), seats(draining, others="a")) is None, "it is about to take over, or to leave"


def test_voters_are_spread_over_hosts() -> None:
    crowded = seats(seat("a", "h1"), seat("b", "h1"), seat("c", "h2"), seat("d", "h3"))
    assert decide(ME, group("abc", "d"), crowded) == Replace(PeerId("b"), by=PeerId("d"))
    spare = seats(seat("a", "h1"), seat("b", "h1"), seat("c", "h2"))
    assert decide(ME, group("a", "bc"), spare) == Promote(PeerId("c"), (PeerId("b"),))


def test_a_learner_that_stays_dead_goes() -> None:
    dead = seat("d", dead_for=GONE)
    assert decide(ME, group("abc", "d"), seats(dead, others="abc")) == Remove(PeerId("d"))


@given(st.data())
def test_it_settles_on_an_odd_number_and_never_gives_up_a_majority_of_the_living(data: st.DataObject) -> None:
    peers = [PeerId(peer) for peer in "abcdefgh"[: data.draw(st.integers(1, 8))]]
    voters = {ME} | set(data.draw(st.lists(st.sampled_from(peers), max_size=VOTERS_MAX - 1)))
    now = Configuration(tuple(sorted(voters)), (), tuple(sorted(set(peers) - voters)))
    members = {
        peer: seat(
            peer,
            host=data.draw(st.sampled_from(["h1", "h2", "h3"])),
            dead_for=0.0 if peer == ME else data.draw(st.sampled_from([0.0, 0.0, 1.0, GONE])),
        )
        for peer in peers
    }

    def healthy(configuration: Configuration) -> int:
        return sum(members[peer].healthy for peer in configuration.voters)

    for _ in range(3 * len(peers)):
        change = decide(ME, now, members)
        if change is None:
            break
        after = left(changed(now, change))
        assert ME in after.voters
        assert len(after.voters) <= VOTERS_MAX
        if 2 * healthy(now) > len(now.voters):
            assert 2 * healthy(after) > len(after.voters)
        now = after
    else:
        raise AssertionError("it never settles")
    if all(members[peer].healthy for peer in now.voters):
        assert len(now.voters) % 2 == 1
        assert len(now.voters) >= min(3, healthy(now))
