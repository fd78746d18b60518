"""A project's runs as rows that the deciders read: the tests of each by name, with what they took, where and how."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.state.model import NO_WORKER
from mesh.state.past import BAD, KINDS, NEITHER, TIMED, Whole
from protocols.alerts import SUBJECT_CHARACTERS_MAX
from protocols.history import PastRun
from protocols.ids import PeerId


@dataclass(frozen=True, slots=True)
class Row:
    """One test in one run."""

    kind: int
    """`GOOD` or `BAD`."""
    seconds: float
    """0: not to be compared (it did not pass, or did not run)."""
    worker: PeerId
    place: int
    """In the manifest."""


@dataclass(frozen=True, slots=True)
class Story:
    """One run."""

    run: PastRun
    rows: Mapping[str, Row]
    flaky: frozenset[str]
    """Tests that passed only when they were tried again."""
    tries: tuple[tuple[str, PeerId], ...]
    """Bad tries before a verdict: the test, and who ran it."""

    @property
    def bad(self) -> int:
        return sum(row.kind == BAD for row in self.rows.values())

    def name_of(self, peer: PeerId) -> str:
        return dict(self.run.workers).get(peer) or peer[-8:]


def story(whole: Whole, names: Sequence[str]) -> Story:
    peers = [peer for peer, _ in whole.run.workers]
    results = whole.results
    rows: dict[str, Row] = {}
    columns = zip(names, results.outcomes, results.durations, results.workers, strict=True)
    for place, (name, outcome, micros, worker) in enumerate(columns):
        peer = peers[worker] if worker < len(peers) else NO_WORKER
        kind = KINDS[outcome]
        if kind != NEITHER:
            rows[name] = Row(kind, micros / 1e6 if outcome in TIMED and peer else 0.0, peer, place)
    flaky = frozenset(names[place] for place in whole.run.flaky if place < len(names))
    tries = tuple(
        (names[place], peers[worker]) for place, worker in whole.run.tries if place < len(names) and worker < len(peers)
    )
    return Story(whole.run, rows, flaky, tries)


def subject_of(project: str, test: str = "") -> str:
    """What an alert about a project, or a test of it, is about."""
    text = f"{project} {test}" if test else project
    if len(text) <= SUBJECT_CHARACTERS_MAX:
        return text
    return f"{text[: SUBJECT_CHARACTERS_MAX - 20]}…{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"
