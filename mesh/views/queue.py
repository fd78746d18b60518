"""What waits, run by run, by priority and by reason: for those who look at the whole mesh. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.scheduler.queue import Standing
from mesh.scheduler.waiting import Waiting
from mesh.state.dependencies import Standing as Barrier
from mesh.state.model import CoordinatorState, Run, RunPhase
from protocols.ids import RunId

RUNS_SHOWN_MAX = 200
REASON_CHARACTERS_MAX = 200

A_SLOT = "a free slot"
OTHERS = "other tests that they depend on"
COLLECTION = "to be collected"
NO_COORDINATOR = "a coordinator: the mesh has none now"


def queue_document(
    state: CoordinatorState,
    standings: Mapping[RunId, Standing],
    waiting: Sequence[Waiting] | None,
    etas: Mapping[RunId, float | None],
) -> dict[str, Any]:
    """The open runs, in the order in which they are served, then those that have all that they ask for. `waiting`: as
    the newest plan has it; None: nobody plans."""
    of_run: dict[RunId, list[Waiting]] = {}
    for one in waiting or ():
        of_run.setdefault(one.run, []).append(one)
    runs = [run for run in state.runs.values() if run.phase in (RunPhase.COLLECTING, RunPhase.RUNNING)]
    last = len(runs) + 1
    runs.sort(key=lambda run: (standings[run.id].place if run.id in standings else last, run.id))
    priorities: dict[int, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    shown = []
    for run in runs:
        told = _reasons(run, of_run.get(run.id, []), waiting is not None)
        reasons.update(told)
        numbers = priorities.setdefault(run.spec.priority, Counter())
        numbers.update(runs=1, pending=run.pending_tests, leased=run.leased)
        standing = standings.get(run.id)
        shown.append(
            {
                "run": str(run.id),
                "name": run.spec.name,
                "state": run.state,
                "priority": run.spec.priority,
                "pending": run.pending_tests,
                "leased": run.leased,
                "place": standing.place if standing else None,
                "of": standing.of if standing else None,
                "eta_seconds": etas.get(run.id),
                "reasons": [{"text": text, "tests": tests} for text, tests in told.most_common()],
            }
        )
    return {
        "runs": shown[:RUNS_SHOWN_MAX],
        "more_runs": max(0, len(shown) - RUNS_SHOWN_MAX),
        "by_priority": [
            {"priority": priority, **{name: numbers[name] for name in ("runs", "pending", "leased")}}
            for priority, numbers in sorted(priorities.items(), reverse=True)
        ],
        "by_reason": [{"text": text, "tests": tests} for text, tests in reasons.most_common()],
    }


def _reasons(run: Run, waiting: Sequence[Waiting], planned: bool) -> Counter[str]:
    """For what its tests wait, and how many of them. A run that is not collected yet counts as one."""
    found: Counter[str] = Counter()
    if run.phase is RunPhase.COLLECTING:
        if not run.leases:
            found[_text(waiting[0]) if waiting else COLLECTION if planned else NO_COORDINATOR] = 1
        return found
    left = run.pending_tests
    if not planned:
        return Counter({NO_COORDINATOR: left}) if left else found
    if run.barriers is not None:
        barriers, outcomes = run.barriers, run.outcomes
        held = sum(task.count for task in run.pending if barriers.standing(outcomes, task.first)[0] is Barrier.WAITING)
        found[OTHERS] = held
        left -= held
    for one in waiting:
        tests = min(one.tests, left)
        if not one.is_busy and tests > 0:
            found[_text(one)] += tests
            left -= tests
    found[A_SLOT] = left
    return +found


def _text(waiting: Waiting) -> str:
    """What they wait for, in a few words."""
    if waiting.shortage:
        text = "more hosts at once than would do"
    elif waiting.wanted is not None:
        text = f"a worker with {waiting.requirement}" if waiting.requirement else "a worker that can be used"
    elif waiting.locks:
        text = f"the lock {', '.join(dict.fromkeys(holder.lock for holder in waiting.locks))}, which others hold"
    elif waiting.is_busy:
        text = A_SLOT
    elif not waiting.tests:
        text = "the runs that come before it"
    else:
        text = f"{waiting.requirement}, which others hold" if waiting.requirement else "what others hold"
    return text if len(text) <= REASON_CHARACTERS_MAX else f"{text[: REASON_CHARACTERS_MAX - 1]}…"
