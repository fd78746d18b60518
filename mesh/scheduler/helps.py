"""What would help work that waits, in a few sentences, the likeliest first: `mesh why` says them. Pure.

Nothing is guessed at: each worker is judged as the plan judges it, and "would do" means that it would be given the
work, as things stand, if that alone were so. Rejected: advice by kind of failure alone ("add a worker with a GPU"),
which is wrong as soon as two constraints meet.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh.scheduler import requirements, shelf
from mesh.scheduler.facts import CHANGING, PROBED, possible
from mesh.scheduler.feasibility import Need
from mesh.scheduler.fleet import WorkerView, unusable
from mesh.scheduler.gaps import Gap, gaps
from mesh.scheduler.remedies import Remedy, phrase, remedy
from mesh.scheduler.requirements import Compare, Expression, Not
from mesh.scheduler.waiting import Help, Holder
from mesh.state.model import CoordinatorState
from protocols.errors import UsageError
from protocols.ids import PeerId, RunId
from protocols.manifests import NOTHING

HELPS_MAX = 5
NODES_MAX = 32
"""That one of them speaks of, in a document."""
NAMES_SHOWN_MAX = 3
"""And in a sentence."""
REMEDIES_MAX = 3
"""A worker that lacks more than this is not worth mending."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """A worker, and what is between it and the work."""

    view: WorkerView
    away: str
    """Why it can be given nothing at all; empty if it can."""
    gaps: tuple[Gap, ...]
    lacks: str
    """What it has too little of, even when idle."""

    @property
    def name(self) -> str:
        return self.view.name or self.view.peer

    @property
    def fits(self) -> bool:
        return not self.gaps and not self.lacks


def helps(
    wanted: Need,
    state: CoordinatorState,
    views: Sequence[WorkerView],
    free_in: Mapping[PeerId, float],
    run: RunId | None = None,
    locks: Sequence[Holder] = (),
) -> tuple[Help, ...]:
    """For work (of `run`) that waits for `locks`, for one of the `views` to have room (`free_in`: seconds until a
    worker has, about), or for one that could do it at all. At most `HELPS_MAX`."""
    try:
        asked = [requirements.parse(text) for text in wanted.requires]
    except UsageError as error:
        return (Help("less", f"correct the requirement: {error}"),)
    judged = [_judge(wanted, asked, state, view) for view in views]
    found = [_lock(holder, judged, free_in) for holder in locks]
    able = [one for one in judged if one.fits and not one.away and run not in one.view.unfit]
    if locks:
        return tuple(found[:HELPS_MAX])
    lacking = wanted.takes.hosts - len(able)
    if lacking <= 0:
        return (_soonest(able, free_in, wanted.takes.hosts),)
    found += _returning([one for one in judged if one not in able])
    found += _mended(judged)
    found += _less(judged)
    found.append(_another(wanted, asked, judged, lacking))
    return tuple(found[: HELPS_MAX - 1] + found[-1:]) if len(found) > HELPS_MAX else tuple(found)


def _judge(wanted: Need, asked: Sequence[Expression | None], state: CoordinatorState, view: WorkerView) -> _Judged:
    missing: list[Gap] = []
    for expression in asked:
        missing += [gap for gap in gaps(expression, view.capabilities) if gap not in missing]
    lacks = shelf.lacks(view, wanted.takes, () if missing else wanted.requires) if wanted.takes.held else ""
    return _Judged(view, unusable(state, view), tuple(missing), lacks)


def _lock(holder: Holder, judged: Sequence[_Judged], free_in: Mapping[PeerId, float]) -> Help:
    on = [one.view.peer for one in judged if one.name == holder.worker]
    seconds = min((free_in[peer] for peer in on if peer in free_in), default=None)
    when = f", in {about(seconds)}" if seconds else ""
    text = f"wait: {holder.lock} comes free when run {holder.run} has done with it on {holder.worker}{when}"
    return Help("wait", text, tuple(on), seconds)


def _soonest(able: Sequence[_Judged], free_in: Mapping[PeerId, float], hosts: int) -> Help:
    """When the first of those who can do it has room, or as many of them as are needed at once."""
    ordered = sorted(able, key=lambda one: (free_in.get(one.view.peer, 0.0), one.view.peer))
    first = ordered[hosts - 1]
    seconds = free_in.get(first.view.peer, 0.0)
    if hosts > 1:
        when = f"finish in {about(seconds)}" if seconds > 0 else "have an idle slot each"
        return Help("wait", f"wait: nodes {_names(ordered[:hosts])} {when}", _peers(ordered), seconds)
    others = f" ({len(able) - 1} more could take it, later)" if len(able) > 1 else ""
    when = f"node {first.name} finishes in {about(seconds)}" if seconds > 0 else f"node {first.name} has an idle slot"
    return Help("wait", f"wait: {when}{others}", _peers([first, *(one for one in able if one is not first)]), seconds)


def _returning(judged: Sequence[_Judged]) -> list[Help]:
    """Workers that could do it, and can be given nothing now, or nothing of this run."""
    found = []
    for why in dict.fromkeys(one.away for one in judged if one.fits):
        alike = [one for one in judged if one.fits and one.away == why]
        if why:
            found.append(Help("return", f"{_names(alike)} could do it, but {why}", _peers(alike)))
            continue
        text = f"{_names(alike)} could do it, but could not prepare this run: mend that, it is asked again and again"
        found.append(Help("return", text, _peers(alike)))
    return found


def _mended(judged: Sequence[_Judged]) -> list[Help]:
    """Workers for which there is a remedy, those with the same together: the fewest remedies first, then the most
    workers."""
    groups: dict[tuple[Remedy, ...], list[_Judged]] = {}
    for one in judged:
        remedies = [remedy(gap) if _may_come(gap, one.view) else None for gap in one.gaps]
        known = tuple(made for made in remedies if made is not None)
        if known and len(known) == len(remedies) <= REMEDIES_MAX and not one.lacks and not one.away:
            groups.setdefault(known, []).append(one)
    ordered = sorted(groups.items(), key=lambda item: (len(item[0]), -len(item[1]), item[1][0].view.peer))
    return [_mending(remedies, alike, len(judged)) for remedies, alike in ordered]


def _may_come(gap: Gap, view: WorkerView) -> bool:
    """False where more is asked for than there is of it in all."""
    changes = not isinstance(gap.term, Not) and gap.term.name in CHANGING
    return not changes or not requirements.unmet(possible(gap.term), view.capabilities)


def _mending(remedies: Sequence[Remedy], alike: Sequence[_Judged], total: int) -> Help:
    who = _names(alike)
    subject = f"{len(alike)} of {total} nodes" if total > 1 else "the node"
    text = f"{subject} would do if {' and '.join(one.condition for one in remedies)}"
    actions = [one.action.replace("{who}", who) for one in remedies if one.action]
    text += f": {', '.join(actions)}" if actions else f" ({who})"
    return Help(remedies[0].kind if len(remedies) == 1 else "several", text, _peers(alike))


def _less(judged: Sequence[_Judged]) -> list[Help]:
    """Workers that are too small for what the tests say that they take."""
    small = [one for one in judged if one.lacks and not one.gaps and not one.away]
    return [Help("less", f"ask for less: {one.name} {one.lacks}", _peers([one])) for one in small[:1]]


def _another(wanted: Need, asked: Sequence[Expression | None], judged: Sequence[_Judged], lacking: int) -> Help:
    parts = [phrase(expression) for expression in asked if expression is not None]
    takes = shelf.describe(wanted.takes) if wanted.takes != NOTHING else ""
    what = " and ".join([*parts, *([takes] if takes else [])])
    start = "start a worker" if wanted.takes.hosts == 1 else f"start {lacking} more worker{'s' * (lacking > 1)}"
    return Help("node", f"{start} with {what}{_nearest(judged)}" if what else start)


def _nearest(judged: Sequence[_Judged]) -> str:
    """Who comes nearest to an amount that nobody has, if that alone is missing."""
    near = [
        (one.gaps[0].distance, one.view.peer, one)
        for one in judged
        if len(one.gaps) == 1 and one.gaps[0].distance < 1.0 and _is_amount(one.gaps[0])
    ]
    if not near:
        return ""
    _, _, one = min(near, key=lambda found: found[:2])
    gap = one.gaps[0]
    assert isinstance(gap.term, Compare)
    assert isinstance(gap.actual, int | float)
    sized = gap.term.value.text[-1:] in "bB"
    has = shelf.size_text(gap.actual) if sized else f"{gap.actual:g}"
    return f" (the nearest is {one.name}, whose {gap.term.name} is {has})"


def _is_amount(gap: Gap) -> bool:
    return isinstance(gap.term, Compare) and gap.term.name.partition(".")[0] in PROBED and remedy(gap) is None


def _names(judged: Iterable[_Judged]) -> str:
    names = [one.name for one in judged]
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    return ", ".join(names[:NAMES_SHOWN_MAX]) + more


def _peers(judged: Sequence[_Judged]) -> tuple[PeerId, ...]:
    return tuple(one.view.peer for one in judged[:NODES_MAX])


def about(seconds: float) -> str:
    """A time that nobody knows exactly."""
    if seconds < 1.5:
        return "about a second"
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"
