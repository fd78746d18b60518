"""The worker's state machine: events in, instructions out."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.worker.machine import LEASES_MAX, Collect, Feed, Kill, Offer, Prepare, WorkerMachine
from protocols.commands import TaskRange
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import RunSpec
from protocols.work import Assign

SPEC = RunSpec(Cid("bafybundle"), "suite", "suite", PeerId("client"))


def assign(lease: int, first: int = 0, count: int = 2, run: int = 1) -> Assign:
    tasks = (TaskRange(first, count),) if count else ()
    return Assign(LeaseId(lease), RunId(run), SPEC, Cid("bafymanifest"), tasks, ())


def test_the_first_lease_of_a_run_prepares_it_and_feeds_once_it_is_ready():
    machine = WorkerMachine(2)
    first, second = assign(10), assign(11, first=2)
    assert machine.assigned(first) == [Prepare(first)]
    assert machine.assigned(second) == []
    assert machine.ready(RunId(1)) == [Feed(first, (0, 1)), Feed(second, (2, 3))]
    third = assign(12, first=4, count=1)
    assert machine.assigned(third) == [Feed(third, (4,))]


def test_the_same_lease_again_changes_nothing():
    machine = WorkerMachine(2)
    machine.assigned(assign(10))
    assert machine.assigned(assign(10)) == []
    assert machine.leases() == (10,)


def test_a_lease_without_tasks_collects():
    machine = WorkerMachine(2)
    collect = assign(10, count=0)
    assert machine.assigned(collect) == [Collect(collect)]
    machine.collected(LeaseId(10))
    assert machine.leases() == ()


def test_a_lease_is_held_until_its_last_result_is_acknowledged():
    machine = WorkerMachine(2)
    machine.assigned(assign(10))
    machine.ready(RunId(1))
    assert machine.started(LeaseId(10), TestIndex(0))
    assert machine.running() == ((10, 0),)
    assert machine.finished(LeaseId(10), TestIndex(0))
    machine.reported(LeaseId(10), 1)
    assert machine.finished(LeaseId(10), TestIndex(1))
    machine.acknowledged(LeaseId(10))
    assert machine.leases() == (10,), "its second result is not yet in the outbox"
    machine.reported(LeaseId(10), 1)
    assert machine.leases() == (10,)
    machine.acknowledged(LeaseId(10))
    assert machine.leases() == ()


def test_a_revoked_lease_is_killed_and_its_results_thrown_away():
    machine = WorkerMachine(2)
    machine.assigned(assign(10))
    machine.ready(RunId(1))
    machine.started(LeaseId(10), TestIndex(0))
    assert machine.revoked((LeaseId(10), LeaseId(99))) == [Kill(RunId(1), LeaseId(10))]
    assert not machine.finished(LeaseId(10), TestIndex(0))
    assert machine.leases() == ()


def ready(*assigns: Assign, slots: int = 2) -> WorkerMachine:
    """A machine that holds these leases, none of them fed yet but those of the first one's run."""
    machine = WorkerMachine(slots)
    for one in assigns:
        machine.assigned(one)
    for run in dict.fromkeys(one.run for one in assigns):
        machine.ready(run)
    return machine


def test_one_run_at_a_time_is_fed():
    first, second = assign(10, count=2, run=1), assign(11, count=3, run=2)
    machine = ready(first, second)
    assert (machine.held[LeaseId(10)].fed, machine.held[LeaseId(11)].fed) == (2, 0)
    machine.finished(LeaseId(10), TestIndex(0))
    assert machine.idle() == [Feed(second, (0,))], "one test on two slots leaves room for one"
    machine.finished(LeaseId(10), TestIndex(1))
    assert machine.idle() == [Feed(second, (1, 2))], "its turn: the rest at once"


def test_a_run_that_is_granted_more_and_more_does_not_keep_out_another():
    first, second, third = assign(10, run=1), assign(11, run=2), assign(12, first=2, run=1)
    machine = ready(first, second)
    assert machine.assigned(third) == []
    assert machine.held[LeaseId(12)].fed == 0
    for test in (0, 1):
        machine.finished(LeaseId(10), TestIndex(test))
    assert machine.idle() == [Feed(second, (0, 1))]
    for test in (0, 1):
        machine.finished(LeaseId(11), TestIndex(test))
    assert machine.idle() == [Feed(third, (2, 3))]


def test_a_run_that_is_not_ready_keeps_nobody_waiting():
    machine = WorkerMachine(2)
    machine.assigned(assign(10, run=1))
    second = assign(11, run=2)
    machine.assigned(second)
    assert machine.ready(RunId(2)) == [Feed(second, (0, 1))]
    assert machine.ready(RunId(1)) == [], "no slot is free"


def test_a_recalled_lease_gives_back_what_no_session_has():
    first, second = assign(10, count=2, run=1), assign(11, count=3, run=2)
    machine = ready(first, second)
    machine.finished(LeaseId(10), TestIndex(0))
    machine.idle()
    assert machine.recalled(LeaseId(11)) == [Offer(LeaseId(11), (1, 2), "")]
    assert machine.recalled(LeaseId(11)) == []
    assert machine.recalled(LeaseId(99)) == []
    assert machine.withdrawn(LeaseId(10), [TestIndex(1)]) == [Offer(LeaseId(10), (1,), "")]
    assert list(machine.held[LeaseId(11)].open) == [0]


def test_what_is_withdrawn_makes_room_for_the_next():
    first, second = assign(10, count=5, run=1), assign(11, count=3, run=2)
    machine = ready(first, second)
    machine.started(LeaseId(10), TestIndex(0))
    back = tuple(TestIndex(i) for i in range(1, 5))
    assert machine.withdrawn(LeaseId(10), back) == [Offer(LeaseId(10), back, ""), Feed(second, (0,))]


def test_a_run_that_cannot_be_worked_on_goes_back_with_its_reason():
    machine = WorkerMachine(2)
    machine.assigned(assign(10))
    assert machine.unfit(RunId(1), "no bundle") == [Offer(LeaseId(10), (0, 1), "no bundle")]
    assert machine.leases() == ()
    assert machine.assigned(assign(12)) == [Prepare(assign(12))]


def test_draining_gives_back_what_has_not_started_and_takes_nothing_more():
    machine = WorkerMachine(2)
    machine.assigned(assign(10, count=3))
    machine.ready(RunId(1))
    machine.started(LeaseId(10), TestIndex(0))
    machine.assigned(assign(11, first=3, run=2))
    assert machine.drain() == [Offer(LeaseId(11), (3, 4), "")]
    assert machine.withdrawn(LeaseId(10), [TestIndex(1), TestIndex(2)]) == [Offer(LeaseId(10), (1, 2), "")]
    assert machine.leases() == (10,)
    assert machine.assigned(assign(12, first=9)) == [Offer(LeaseId(12), (9, 10), "")]


def test_leases_are_bounded():
    machine = WorkerMachine(2)
    for lease in range(LEASES_MAX):
        machine.assigned(assign(lease, first=lease, count=1))
    assert machine.assigned(assign(9999, first=9999, count=1)) == [Offer(LeaseId(9999), (9999,), "")]


@given(st.lists(st.tuples(st.sampled_from("arsfkwd"), st.integers(0, 5), st.integers(0, 2)), max_size=60))
def test_every_test_is_fed_offered_or_killed_and_never_reported_after(events):
    """Whatever happens, a test is fed at most once a lease, and none is reported after it was given back or killed."""
    machine = WorkerMachine(2)
    fed: list[tuple[int, int]] = []
    gone: set[tuple[int, int]] = set()
    for kind, lease, offset in events:
        test = TestIndex(lease * 3 + offset)
        out = []
        if kind == "a" and not any(g[0] == lease for g in gone):
            out = machine.assigned(assign(lease, first=lease * 3, count=3, run=lease % 2))
        elif kind == "r":
            out = machine.ready(RunId(lease % 2))
        elif kind == "s":
            machine.started(LeaseId(lease), test)
        elif kind == "f":
            if machine.finished(LeaseId(lease), test):
                assert (lease, test) not in gone
            out = machine.idle()
        elif kind == "k":
            held = machine.held.get(LeaseId(lease))
            gone |= {(lease, t) for t in held.open} if held else set()
            out = machine.revoked((LeaseId(lease),))
        elif kind == "w":
            held = machine.held.get(LeaseId(lease))
            unstarted = [t for t in held.open if t not in held.started] if held else []
            out = machine.withdrawn(LeaseId(lease), unstarted)
        elif kind == "d":
            out = machine.drain()
        for instruction in out:
            if isinstance(instruction, Feed):
                fed += [(instruction.assign.lease, t) for t in instruction.tests]
                assert len(set(fed)) == len(fed), "a test is fed once"
            if isinstance(instruction, Offer):
                gone |= {(instruction.lease, t) for t in instruction.tests}
        held_now = {(lease, t) for lease, h in machine.held.items() for t in h.open}
        assert not held_now & gone
    assert all(count >= 0 for count in (h.unreported for h in machine.held.values()))
