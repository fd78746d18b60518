"""A run of some of a bundle's tests: what a `Selection` leaves of a manifest. Pure.

It is applied to the whole collection, so tests that are not there any more are no error, and parameters that a command
line could not carry are no difficulty.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from mesh.ports import CollectionFailed
from mesh.worker.pytest_side import telling
from protocols.manifests import Dependency, Manifest, Selection

EXIT_NOTHING = 5


def select(manifest: Manifest, selection: Selection) -> Manifest | CollectionFailed:
    """The tests that are to run, in order; pytest's "nothing collected" if that leaves none."""
    wanted = set(selection.tests)
    places = range(len(manifest.tests))
    chosen = [i for i in places if manifest.tests[i].id in wanted or _file(manifest.tests[i].id) in wanted]
    if not chosen and selection.otherwise_all:
        return manifest
    if selection.first:
        taken = set(chosen)
        chosen += [i for i in places if i not in taken]
    notes = telling.unpack_notes(manifest.notes)
    dropped = len(manifest.tests) - len(chosen)
    notes["deselected"] += dropped
    lines = notes["lines"] + [None] * (len(manifest.tests) - len(notes["lines"]))
    notes["lines"] = [lines[i] for i in chosen]
    packed = telling.pack_notes(notes)
    if not chosen:
        return CollectionFailed(EXIT_NOTHING, f"no tests ran ({notes['deselected']} deselected)", packed)
    return dataclasses.replace(
        manifest,
        tests=tuple(manifest.tests[i] for i in chosen),
        notes=packed,
        dependencies=_among(manifest.dependencies, {old: new for new, old in enumerate(chosen)}),
    )


def _among(dependencies: Sequence[Dependency], places: Mapping[int, int]) -> tuple[Dependency, ...]:
    """The dependencies between chosen tests. One on a test that was left out falls: a retry of what failed goes without
    what had passed."""
    return tuple(
        Dependency(first, count, on, on_count, one.passed)
        for one in dependencies
        for first, count in _chosen(one.first, one.count, places)
        for on, on_count in (_chosen(one.on, one.on_count, places) if one.on_count else [(0, 0)])
    )


def _chosen(first: int, count: int, places: Mapping[int, int]) -> list[tuple[int, int]]:
    """Where the chosen ones of `count` tests from `first` are now, as (first, count) of neighbours."""
    runs: list[tuple[int, int]] = []
    for place in sorted(places[old] for old in range(first, first + count) if old in places):
        if runs and sum(runs[-1]) == place:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((place, 1))
    return runs


def _file(test: str) -> str:
    return test.partition("::")[0]
