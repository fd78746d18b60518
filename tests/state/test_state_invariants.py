"""A check of the checks: each way of breaking a state is noticed."""

from collections.abc import Callable

import pytest
from state_builder import ALICE, BOB, Builder, complete

from mesh.state.invariants import check
from mesh.state.model import CoordinatorState, Lease, Run, RunPhase, Task
from protocols.ids import LeaseId, RunId


def lose(state: CoordinatorState, run: Run) -> None:
    run.pending.pop()


def double(state: CoordinatorState, run: Run) -> None:
    run.pending.insert(0, Task(0, 1))


def disorder(state: CoordinatorState, run: Run) -> None:
    run.pending.reverse()


def miscount(state: CoordinatorState, run: Run) -> None:
    run.counts[1] += 1


def misplace_done(state: CoordinatorState, run: Run) -> None:
    run.outcomes[1] = 1


def accept_twice(state: CoordinatorState, run: Run) -> None:
    run.chunks.append(run.chunks[0])


def change_verdict(state: CoordinatorState, run: Run) -> None:
    run.outcomes[0] = 3
    run.counts[0], run.counts[3] = 0, 1


def forget_lease(state: CoordinatorState, run: Run) -> None:
    del state.leases[run.leases[0]]


def strange_worker(state: CoordinatorState, run: Run) -> None:
    state.workers[ALICE].incarnation += 1


def empty_lease(state: CoordinatorState, run: Run) -> None:
    lease = Lease(LeaseId(1), run.id, BOB, 1, [])
    state.leases[lease.id] = lease
    run.leases.insert(0, lease.id)
    state.workers[BOB].leases.append(lease.id)


def false_alone(state: CoordinatorState, run: Run) -> None:
    state.leases[run.leases[0]].alone = True


def stray_nonce(state: CoordinatorState, run: Run) -> None:
    state.nonces[b"stray"] = RunId(1)


def early_end(state: CoordinatorState, run: Run) -> None:
    run.phase = RunPhase.REPORTING


def unpaid_end(state: CoordinatorState, run: Run) -> None:
    run.exit_code = 0


@pytest.mark.parametrize(
    "damage",
    [lose, double, disorder, miscount, misplace_done, accept_twice, change_verdict, forget_lease, strange_worker,
     empty_lease, false_alone, stray_nonce, early_end, unpaid_end],
)  # fmt: skip
def test_damage_is_noticed(damage: Callable[[CoordinatorState, Run], None]) -> None:
    builder = Builder()
    run = builder.running(Task(0, 4), Task(4, 3), Task(7, 1))
    lease = builder.grant(run.id, ALICE, Task(0, 2))
    builder.grant(run.id, ALICE, Task(2, 1))
    builder.accept(complete(lease, 0))
    check(builder.state)
    damage(builder.state, run)
    with pytest.raises(AssertionError):
        check(builder.state)
