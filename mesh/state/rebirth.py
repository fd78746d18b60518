"""A new mesh out of the state of another: what `mesh snapshot restore` and `mesh recover` found.

It must never be taken for the one that it comes from, whose nodes may still live, and whose log may have gone on: so
it has another name (Raft's messages carry it), and its log goes on at an index that the other one never reaches. Lease
and run are named by the index of their entry; with the same indexes in both, a late result for a lease there would be
taken for one here.

Recorded verdicts stay. Leases are closed and their tests pending again, without a loss: that their worker is not here
is no fault of theirs. Rejected: keeping leases open until they time out (their workers answer to another mesh).
"""

from mesh.state import ranges
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from protocols.commands import TESTS_PER_COMMAND_MAX, RaiseFormat, Return
from protocols.ids import TestIndex
from protocols.raft import LOG_FORMAT_NEWEST

GENERATION_ENTRIES = 10**12
"""Indexes that a log may use before one that came from it begins: at 1,000 entries a second, 31 years."""


def first_index(last: int) -> int:
    """Of the generation after the one that `last` belongs to."""
    return (last // GENERATION_ENTRIES + 1) * GENERATION_ENTRIES


def reborn(state: CoordinatorState, mesh: str, last: int) -> CoordinatorState:
    """`state`, changed into that of a new mesh; `last` is the last index of the log that it comes from."""
    for lease in list(state.leases.values()):
        tests = [TestIndex(test) for task in lease.open for test in range(task.first, ranges.end(task))]
        for start in range(0, max(1, len(tests)), TESTS_PER_COMMAND_MAX):
            apply(state, state.applied + 1, Return(lease.id, tuple(tests[start : start + TESTS_PER_COMMAND_MAX])))
    assert not state.leases, "every lease was given back whole"
    state.mesh = mesh
    state.yielded = ""
    apply(state, state.applied + 1, RaiseFormat(LOG_FORMAT_NEWEST))
    state.applied = first_index(last)
    return state
