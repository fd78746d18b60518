"""Who can do a piece of work, and of everybody else why not: as data, so that `mesh why` answers from a plan."""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.scheduler import facts, requirements, shelf
from mesh.scheduler.fleet import WorkerView, unusable
from mesh.state.model import CoordinatorState, Run
from protocols.errors import UsageError
from protocols.ids import PeerId, RunId
from protocols.manifests import NOTHING, Needs


@dataclass(frozen=True, slots=True)
class Need:
    """What a task asks for: expressions that must all hold, and expressions that would be liked."""

    requires: tuple[str, ...] = ()
    prefers: tuple[str, ...] = ()
    takes: Needs = NOTHING

    def __str__(self) -> str:
        texts = " and ".join(f"({text})" if len(self.requires) > 1 else text for text in self.requires)
        each = ", ".join(part for part in (texts, shelf.describe(self.takes)) if part)
        if self.takes.hosts == 1:
            return each
        return f"{self.takes.hosts} hosts at once" + (f" with {each}" if each else "")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a worker can't take some work; `text` ends a sentence that begins with its name."""

    peer: PeerId
    name: str
    text: str


def need(run_needs: tuple[str, str], task_needs: tuple[str, str], takes: Needs = NOTHING) -> Need:
    """A run's own (requires, prefers) joined with a task's, and what it takes."""
    requires, prefers = zip(run_needs, task_needs, strict=True)
    return Need(
        tuple(dict.fromkeys(text for text in requires if text.strip())),
        tuple(dict.fromkeys(text for text in prefers if text.strip())),
        takes,
    )


def need_of(run: Run, requirement: int | None = None) -> Need:
    """What the run's tests of a requirement ask for; without one, the run itself."""
    if requirement is None:
        return need((run.spec.requires, run.spec.prefers), ("", ""))
    return need((run.spec.requires, run.spec.prefers), run.requirements[requirement], run.needs_of(requirement))


def unmet(wanted: Need, view: WorkerView) -> str:
    """Why a worker's capabilities do not do; empty if they do. A requirement that can't be read is met by nobody."""
    try:
        for text in wanted.requires:
            reason = requirements.unmet(requirements.parse(text), view.capabilities)
            if reason:
                return reason
    except UsageError as error:
        return f"can't judge it: {error}"
    return shelf.lacks(view, wanted.takes, wanted.requires) if wanted.takes.held else ""


def may_come(wanted: Need, view: WorkerView) -> bool:
    """Whether a worker could do it if it were idle, with all that it has free."""
    fixed = []
    for text in wanted.requires:
        try:
            whole = requirements.parse(text)
        except UsageError:
            return False
        part = facts.possible(whole)
        if requirements.unmet(part, view.capabilities):
            return False
        fixed += [text] if part == whole else []
    return not shelf.lacks(view, wanted.takes, tuple(fixed)) if wanted.takes.held else True


def preference(wanted: Need, view: WorkerView) -> int:
    """How many of the preferences a worker meets; one that can't be read is met by nobody."""
    score = 0
    for text in wanted.prefers:
        try:
            score += not requirements.unmet(requirements.parse(text), view.capabilities)
        except UsageError:
            continue
    return score


def split(
    state: CoordinatorState, views: Iterable[WorkerView], wanted: Need, run: RunId | None = None
) -> tuple[list[WorkerView], tuple[Reason, ...]]:
    """The views that can take the work (of `run`) now, and the reasons of the others, both in the given order."""
    capable: list[WorkerView] = []
    reasons: list[Reason] = []
    for view in views:
        text = unusable(state, view) or ("could not prepare this run" if run in view.unfit else unmet(wanted, view))
        if text:
            reasons.append(Reason(view.peer, view.name, text))
        else:
            capable.append(view)
    return capable, tuple(reasons)
