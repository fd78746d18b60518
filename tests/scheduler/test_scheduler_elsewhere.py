"""A test that was bad is tried again elsewhere first, and never waits for what may not come."""

import pytest
from scheduler_rig import GPU, Rig, members

from mesh.scheduler.elsewhere import WAIT_SECONDS_MAX
from mesh.scheduler.plan import Plan
from mesh.state.model import Run, Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Grant
from protocols.ids import LeaseId, TestIndex
from protocols.manifests import Needs, Outcome

FAILED = Outcome.FAILED.code


@pytest.fixture
def rig() -> Rig:
    return Rig()


def fail(rig: Rig, run: Run, test: int, worker: str) -> None:
    """The test is bad on this worker, and pending again."""
    rig.complete(grant(rig, run, worker, Task(test, 1)), [test], code=FAILED)


def grant(rig: Rig, run: Run, worker: str, *tasks: Task) -> LeaseId:
    view = rig.fleet[worker]
    lease = rig.accept(Grant(run.id, view.peer, view.incarnation, tasks)).lease
    assert lease is not None
    return lease


def where(plan: Plan, test: int) -> list[str]:
    return [one.worker for one in plan.grants if test in members(one.tasks)]


def test_it_goes_to_each_other_worker_first_and_then_anywhere(rig: Rig) -> None:
    for name in "abc":
        rig.worker(name)
    run = rig.running([Task(0, 1)], [0.1], retries=5)
    seen = []
    for _ in range(3):
        (lease,) = rig.follow(rig.plan())
        seen.append(lease.worker)
        rig.complete(lease.id, [0], code=FAILED)
    assert sorted(seen) == ["a", "b", "c"]
    assert run.failed_on == {0: tuple(seen)}
    assert len(rig.plan().grants) == 1, "it was bad everywhere, so it goes anywhere"


def test_a_worker_alone_tries_it_again_itself(rig: Rig) -> None:
    rig.worker("a")
    run = rig.running([Task(0, 1)], [0.1], retries=1)
    fail(rig, run, 0, "a")
    assert where(rig.plan(), 0) == ["a"]


@pytest.mark.parametrize("other", [{"alive": False}, {"draining": True}, {"slots": 0}, {"capabilities": {}}])
def test_who_can_not_do_it_is_not_waited_for(rig: Rig, other: dict[str, object]) -> None:
    rig.worker("a", capabilities=GPU)
    rig.worker("b", capabilities=GPU)
    run = rig.running([Task(0, 1)], [0.1], retries=1, requires="gpu")
    fail(rig, run, 0, "a")
    assert where(rig.plan(), 0) == ["b"]
    rig.see("b", **{"capabilities": GPU, **other})
    assert where(rig.plan(), 0) == ["a"]


def test_it_waits_for_a_busy_worker_but_not_for_one_that_is_busy_for_long(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1)
    short = rig.running([Task(0, 1)], [WAIT_SECONDS_MAX], "short")
    held = grant(rig, short, "b", Task(0, 1))
    run = rig.running([Task(0, 2)], [0.1, 0.1], retries=1)
    fail(rig, run, 0, "a")
    plan = rig.plan()
    assert (where(plan, 0), where(plan, 1)) == ([], ["a"]), "what was not bad there goes there"
    rig.complete(held, [0])
    assert where(rig.plan(), 0) == ["b"]
    long = rig.running([Task(0, 1)], [WAIT_SECONDS_MAX * 1.1], "long")
    grant(rig, long, "b", Task(0, 1))
    assert where(rig.plan(), 0) == ["a"]


def test_it_does_not_wait_for_a_worker_whose_tests_never_end(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1)
    other = rig.running([Task(0, 1)], [1.0], "other")
    endless = grant(rig, other, "b", Task(0, 1))
    run = rig.running([Task(0, 1)], [0.1], retries=1)
    fail(rig, run, 0, "a")
    for seconds, places in ((WAIT_SECONDS_MAX / 2, []), (WAIT_SECONDS_MAX, ["a"])):
        rig.see("b", slots=1, running=((endless, TestIndex(0), seconds),))
        assert where(rig.plan(), 0) == places


def test_it_does_not_wait_for_a_worker_that_a_more_urgent_run_keeps(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1, capabilities=GPU)
    run = rig.running([Task(0, 1)], [0.1], retries=1)
    fail(rig, run, 0, "a")
    assert where(rig.plan(), 0) == ["b"]
    rig.running([Task(first, 1) for first in range(500)], [5.0] * 500, "urgent", priority=90, requires="gpu")
    assert [one.worker for one in rig.plan().grants if one.run == run.id] == ["a"]


def test_a_limit_of_workers_is_kept(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1)
    run = rig.running([Task(0, 2)], [0.1, 0.1], retries=1, worker_count=1)
    lease = grant(rig, run, "a", Task(0, 2))
    rig.complete(lease, [0], code=FAILED)
    assert where(rig.plan(), 0) == ["a"]


def test_what_was_not_bad_is_run_meanwhile(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1)
    run = rig.running([Task(0, 40)], [0.1] * 40, retries=1)
    for test in (3, 4, 7):
        fail(rig, run, test, "a")
    plan = rig.plan()
    assert [where(plan, test) for test in (3, 4, 7)] == [["b"], ["b"], ["b"]]
    assert "a" in {one.worker for one in plan.grants}, "which has other tests to run"


def test_what_holds_something_goes_elsewhere_too(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1)
    run = rig.running([Task(0, 3)], [5.0] * 3, retries=1, needs=(Needs(memory=1),))
    fail(rig, run, 1, "a")
    plan = rig.plan()
    assert (where(plan, 1), len(plan.grants)) == (["b"], 2)
    for test in (0, 2):
        rig.complete(grant(rig, run, "b", Task(test, 1)), [test])
    rig.see("b", slots=1, alive=False)
    assert where(rig.plan(), 1) == ["a"]


def test_what_lost_a_node_goes_elsewhere_too(rig: Rig) -> None:
    for name in "ab":
        rig.worker(name, slots=1)
    run = rig.running([Task(0, 1)], [0.1], retries=1)
    fail(rig, run, 0, "a")
    (lease,) = rig.follow(rig.plan())
    assert lease.worker == "b"
    rig.see("b", slots=1, alive=False, lost=True)
    rig.follow(rig.plan())
    rig.see("b", slots=1)
    rig.accept(Grant(rig.running([Task(0, 1)], [1.0], "other").id, lease.worker, 1, (Task(0, 1),)))
    assert where(rig.plan(), 0) == [], "it waits for the other one"


def test_a_new_coordinator_knows_where_it_was_bad(rig: Rig) -> None:
    rig.worker("a")
    rig.worker("b")
    run = rig.running([Task(0, 1)], [0.1], retries=1)
    fail(rig, run, 0, "b")
    rig.state = decode_state(encode_state(rig.state))
    assert rig.state.runs[run.id].failed_on == {0: ("b",)}
    assert where(rig.plan(), 0) == ["a"]


def test_a_thousand_failures_all_get_their_second_try(rig: Rig) -> None:
    for name in "ab":
        rig.worker(name, slots=4)
    run = rig.running([Task(first, 50) for first in range(0, 1000, 50)], [0.01] * 1000, retries=1)
    while not run.exit_code and run.done < run.tests:
        for lease in rig.follow(rig.plan()):
            for test in members(lease.open):
                assert lease.worker not in run.failed_on.get(test, ())
            rig.complete(lease.id, members(lease.open), code=FAILED)
        assert len(run.tries) < 1000
    assert run.retried == dict.fromkeys(range(1000), 1)
