"""A run of some of a bundle's tests: what a `Selection` leaves of a manifest. Pure.

It is applied to the whole collection, so tests that are not there any more are no error, and parameters that a command
line could not carry are no difficulty.
"""

import dataclasses

from mesh.ports import CollectionFailed
from mesh.worker.pytest_side import telling
from protocols.manifests import Manifest, Selection

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
    return dataclasses.replace(manifest, tests=tuple(manifest.tests[i] for i in chosen), notes=packed)


def _file(test: str) -> str:
    return test.partition("::")[0]
