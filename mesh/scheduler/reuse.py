"""Which tests of a run take the verdict of an earlier one, because nothing that they read has changed. Pure.

A verdict is taken over only if it is `passed` at the first try, if every input of its attempt is what it was (files and
listings of the bundle, what imports could find there), in the same environment and variables, with the same arguments,
on a class of hardware that the mesh has now; and if it read nothing that can't be compared (the network, files outside,
other processes), unless the run allows that. A share of those that qualify runs all the same: one that then does not
pass read something that was not seen, and is not reused again until the file that holds it changes.

Rejected: comparing which functions ran (an earlier test of the same process may have left their results in memory), or
what of a module's text changed (line numbers show in tracebacks): a file is its content, a module its file.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from protocols.codec import encode
from protocols.ids import Cid, PeerId, TestIndex
from protocols.inputs import UNSEEN, Inputs, Names, Place, VerdictIndex, numbers_of, unpacked_sets
from protocols.manifests import Manifest, RunSpec

SAMPLE_SHARE = 0.02
"""Of the tests that could be reused: run all the same, one at least."""

EXTENSIONS = (".so", ".pyd")
METADATA = (".dist-info", ".egg-info")
CONTEXT_CHARACTERS = 32


def context(spec: RunSpec) -> str:
    """What a verdict depends on beside its inputs and where it ran, as far as the run says it."""
    said = RunSpec(
        bundle=Cid(""),
        name=spec.name,
        project="",
        submitter=PeerId(""),
        arguments=spec.arguments,
        requires=spec.requires,
        prefers=spec.prefers,
        test_type=spec.test_type,
        environment=spec.environment,
        python=spec.python,
        variables=tuple(sorted(spec.variables)),
        after=spec.after,
    )
    return hashlib.sha256(encode(said)).hexdigest()[:CONTEXT_CHARACTERS]


class Tree:
    """What a bundle's tree is to those who read it: path -> CID of each file and link."""

    def __init__(self, files: Mapping[str, Cid]) -> None:
        self._files = files
        self._inside: defaultdict[str, set[str]] = defaultdict(set)
        """Directory -> names in it; the root is ""."""
        self._importable: defaultdict[str, list[str]] = defaultdict(list)
        """Name -> the modules and directories that an import of it could find."""
        self._known: dict[str, str] = {}
        self._settled: dict[str, str] = {}
        for path in sorted(files):
            inner = PurePosixPath(path)
            for parent in inner.parents:
                folder = "" if str(parent) == "." else str(parent)
                if folder and folder not in self._inside:
                    self._importable[parent.name].append(folder + "/")
                self._inside[folder].add(inner.name)
                inner = parent
            name = path.rpartition("/")[2]
            if name.endswith((".py", *EXTENSIONS)):
                self._importable[name.partition(".")[0]].append(path)

    def state(self, name: str) -> str:
        """What an input is now: the same text means the same content. Empty: there is no such thing, or it can't be
        compared."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._state(*name.partition(":")[::2])
        return known

    def _state(self, kind: str, what: str) -> str:
        if kind in ("file", "none"):
            return self._file(what)
        if kind == "list":
            return _digest(sorted(self._inside[what])) if what in self._inside else ""
        if kind == "name":
            found = self._importable.get(what)
            return _digest(found) if found else ""
        if kind == "meta":
            return _digest(f"{path} {cid}" for path, cid in sorted(self._files.items()) if _is_metadata(path))
        return ""

    def _file(self, path: str) -> str:
        """A module's state tells, too, what else is there that an import would find in its place."""
        cid = self._files.get(path, Cid(""))
        if not cid and path in self._inside:
            return "directory"
        folder, _, name = path.rpartition("/")
        if not cid or not name.endswith(".py"):
            return cid
        if name == "__init__.py" and folder:
            folder, _, name = folder.rpartition("/")
        rivals = [
            other
            for other in self._importable.get(name.partition(".")[0], ())
            if other.rstrip("/").rpartition("/")[0] == folder and not path.startswith(other)
        ]
        return f"{cid} {' '.join(rivals)}" if rivals else cid

    def settled(self, inputs: Inputs) -> Inputs:
        """What tests of this very tree say they read: of files that are not of the tree, as such."""
        known = self._settled
        for name in inputs:
            if name not in known:
                kind, _, what = name.partition(":")
                strange = kind in ("file", "none", "list") and bool(self.state(name)) != (kind != "none")
                known[name] = f"files:{what} is not of the bundle" if strange else name
        return tuple(map(known.__getitem__, inputs))


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _is_metadata(path: str) -> bool:
    return any(part.endswith(METADATA) for part in path.split("/"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A test passed: with these inputs, there, in so many microseconds; the record of that attempt."""

    inputs: Inputs
    place: Place
    duration: int
    record: Cid


def index_of(
    manifest: Cid,
    of_run: str,
    tree: Tree,
    verdicts: Iterable[tuple[TestIndex, Verdict]],
    refused: Iterable[TestIndex],
    distrusted: Iterable[tuple[str, str]],
) -> VerdictIndex:
    """What a later run needs to know of a run on `tree`. `of_run`: its `context`; inputs as `Tree.settled` has them."""
    names, known, places = Names(), dict[int, int](), dict[Place, int]()
    rows: list[tuple[TestIndex, int, int, int, Cid]] = []
    for test, verdict in sorted(verdicts, key=lambda one: one[0]):
        number = known.get(id(verdict.inputs))
        if number is None:
            number = known[id(verdict.inputs)] = names.set_of(verdict.inputs)
        place = places.setdefault(verdict.place, len(places))
        rows.append((test, number, place, verdict.duration, verdict.record))
    return VerdictIndex(
        manifest,
        of_run,
        names.names,
        tuple(tree.state(name) for name in names.names),
        names.sets,
        tuple(places),
        tuple(row[0] for row in rows),
        tuple(row[1] for row in rows),
        tuple(row[2] for row in rows),
        tuple(row[3] for row in rows),
        tuple(row[4] for row in rows),
        tuple(sorted(refused)),
        tuple(sorted(set(distrusted))),
    )


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run that went before, and the IDs of its tests."""

    index: VerdictIndex
    tests: Sequence[str]


def candidates(
    manifest: Manifest,
    earlier: Sequence[Earlier],
    tree: Tree,
    of_run: str,
    hardware: Collection[str],
    allowed: Collection[str],
) -> dict[TestIndex, Verdict]:
    """Tests that need not run, and the verdicts that they may take: of the newest run that has one (`earlier` begins
    with the newest)."""
    open_tests = {test.id: TestIndex(number) for number, test in enumerate(manifest.tests)}
    for one in manifest.dependencies:
        for number in range(one.first, one.first + one.count):  # whether those pass is not known yet
            open_tests.pop(manifest.tests[number].id, None)
    for test in distrusted(earlier, tree):
        open_tests.pop(test, None)
    found: dict[TestIndex, Verdict] = {}
    for run in earlier:
        if run.index.context != of_run:
            continue
        for number in run.index.refused:
            if number < len(run.tests):
                open_tests.pop(run.tests[number], None)
        for test, verdict in _unchanged(run, tree, manifest.setting, hardware, allowed):
            place = open_tests.pop(test, None)
            if place is not None:
                found[place] = verdict
    return found


def distrusted(earlier: Sequence[Earlier], tree: Tree) -> dict[str, str]:
    """Tests that once did not pass although no input had changed, and the CIDs of their files, the same since."""
    return {
        test: cid for run in earlier for test, cid in run.index.distrusted if cid and cid == tree.state(own_file(test))
    }


def own_file(test: str) -> str:
    """The input that is a test's own file."""
    return "file:" + test.partition("::")[0]


def _unchanged(
    run: Earlier, tree: Tree, setting: str, hardware: Collection[str], allowed: Collection[str]
) -> Iterator[tuple[str, Verdict]]:
    index = run.index
    unseen = tuple(f"{kind}:" for kind in UNSEEN if kind not in allowed)
    changed: Set[int] = {
        number
        for number, (name, state) in enumerate(zip(index.names, index.states, strict=True))
        if name.startswith(unseen) or tree.state(name) != state
    }
    good = [changed.isdisjoint(numbers_of(one)) for one in index.sets]
    fits = [place.setting == setting and place.hardware in hardware for place in index.places]
    words = unpacked_sets(index.names, index.sets)
    columns = zip(index.tests, index.of, index.at, index.durations, index.records, strict=True)
    for test, number, at, duration, record in columns:
        if good[number] and fits[at] and test < len(run.tests):
            yield run.tests[test], Verdict(words[number], index.places[at], duration, record)


def sample(tests: Mapping[TestIndex, str], seed: str) -> list[TestIndex]:
    """Those of the tests (number -> ID) that are run all the same; of the same seed, the same ones."""

    def draw(test: TestIndex) -> bytes:
        return hashlib.sha256(f"{seed} {tests[test]}".encode("utf-8", "surrogateescape")).digest()

    count = max(1, math.ceil(len(tests) * SAMPLE_SHARE)) if tests else 0
    return sorted(sorted(tests, key=draw)[:count])
