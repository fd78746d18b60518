"""When a run will have ended, about."""

from mesh.scheduler.durations import Estimates
from mesh.scheduler.eta import OBSERVED_TESTS_MIN, seconds_left
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState, Run
from protocols.commands import Cancel, Collected, Complete, Found, Grant, Register, Submit, TaskRange
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import RunSpec

W, V = PeerId("w"), PeerId("v")
TREE = Cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
TESTS = 100


class Case:
    def __init__(self) -> None:
        self.state = CoordinatorState()
        self._index = 0
        for command in (
            Found("m"), Register(W, "w", 1, 2), Register(V, "v", 1, 2), Submit(b"n", RunSpec(TREE, "s", "p", V), 1.0),
            Grant(RunId(4), W, 1, ()), Collected(LeaseId(5), TREE, TESTS, (TaskRange(0, TESTS),)),
        ):  # fmt: skip
            self.apply(command)

    def apply(self, command: object) -> LeaseId:
        self._index += 1
        apply(self.state, self._index, command)  # type: ignore[arg-type]
        return LeaseId(self._index)

    @property
    def run(self) -> Run:
        return self.state.runs[RunId(4)]

    def left(self, known: bool = True, running: dict[int, float] | None = None) -> float | None:
        """Each test is expected to take a second."""
        estimates = Estimates([1.0] * TESTS, known)
        done = float(self.run.done)
        under_way = [(W, LeaseId(7), TestIndex(test), seconds) for test, seconds in (running or {}).items()]
        return seconds_left(self.state, self.run, estimates, (done, done), under_way, {})


def test_it_is_what_is_left_over_the_slots_at_work() -> None:
    case = Case()
    assert case.left() is None, "nobody works on it"
    lease = case.apply(Grant(RunId(4), W, 1, (TaskRange(0, 40),)))
    assert case.left() == 50.0
    other = case.apply(Grant(RunId(4), V, 1, (TaskRange(40, 10),)))
    assert case.left() == 25.0
    assert case.left(running={0: 0.5, 1: 0.5}) == 24.75
    tests = tuple(TestIndex(test) for test in range(OBSERVED_TESTS_MIN))
    case.apply(Complete(lease, TREE, tests, bytes(len(tests)), (2_000_000,) * len(tests)))
    assert case.left() == 40.0, "tests take twice as long as expected"
    last = tuple(TestIndex(test) for test in range(40, 49))
    case.apply(Complete(other, TREE, last, bytes(len(last)), (2_000_000,) * len(last)))
    assert case.left() == round(2 * 71 / 3, 3), "a worker with one test left has one slot at work"


def test_a_long_test_at_the_end_is_waited_for() -> None:
    case = Case()
    case.apply(Grant(RunId(4), W, 1, (TaskRange(0, TESTS),)))
    estimates = Estimates([50.0, *[0.0] * (TESTS - 1)])
    assert seconds_left(case.state, case.run, estimates, (0.0, 0.0), [(W, LeaseId(7), TestIndex(0), 10.0)], {}) == 40.0


def test_a_worker_of_two_runs_gives_each_a_part() -> None:
    case = Case()
    case.apply(Grant(RunId(4), W, 1, (TaskRange(0, 30),)))
    second = case.apply(Submit(b"m", RunSpec(TREE, "s", "p", V), 1.0))
    collects = case.apply(Grant(RunId(second), W, 1, ()))
    case.apply(Collected(collects, TREE, 30, (TaskRange(0, 30),)))
    assert case.left() == 50.0
    case.apply(Grant(RunId(second), W, 1, (TaskRange(0, 30),)))
    assert case.left() == 100.0


def test_what_nobody_knows_is_not_guessed() -> None:
    case = Case()
    case.apply(Grant(RunId(4), W, 1, (TaskRange(0, 40),)))
    assert case.left(known=False) is None
    assert seconds_left(case.state, case.run, None, (0.0, 0.0), [], {}) is None
    case.apply(Cancel(RunId(4), "enough"))
    assert case.left() == 0.0, "its report is made"
