"""How long tests took in earlier runs of the same project: what the order of a new run follows.

Nothing is kept beside the log: durations, and who ran what, stand in the replicated state of finished runs, test names
in their manifests, which are content. A new coordinator learns the same again (`scheduler/prediction.py`), a project at
a time, with its other work in between.
"""

import math
import statistics
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import trio

from mesh.manifests import Manifests
from mesh.scheduler.contention import Contention
from mesh.scheduler.durations import Estimates
from mesh.scheduler.prediction import Learning, Model, Record
from mesh.state.model import CoordinatorState, Run
from protocols.errors import ContentNotFound
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Manifest

MANIFEST_SECONDS = 120.0
"""For which one is looked for; a run whose manifest is nowhere then ends without a report."""

HINT_SECONDS = 5.0
"""The same where it is only for how long tests took; also for those of several runs together."""

RUNS_MAX = 12
"""Of a project, that are learnt from: the newest ones. More than a test has observations in the model, since many runs
are of a part of the tests only."""
SCANTY_MAX = 6
"""Beside them, runs most of whose tests did not run (`--cached`)."""
TESTS_MAX = 500_000
"""Of these runs together; the newest counts whatever its size."""
MODELS_MAX = 16
"""Projects whose models are kept in memory; some 12 MB for 100,000 tests."""


@dataclass(frozen=True, slots=True)
class Error:
    """How far durations were off: of `run`, as those before it would have had them expected."""

    run: RunId
    median: float
    """Of |expected - actual| / actual, over `tests`."""
    tests: int
    under: float
    """The part of them that took at most their upper estimate."""
    pace: float
    """What they took together, over what was expected: plans correct that as verdicts come."""
    at_pace: float
    """`median`, once that is done."""


class History:
    """Manifests, and estimated durations, by run."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self._models: OrderedDict[str, tuple[RunId, Model]] = OrderedDict()
        """By project, each with the newest run that it knows."""
        self._errors: OrderedDict[str, Error | None] = OrderedDict()
        """By project, of the newest run in its model."""
        self._turn = trio.Lock()
        """One model is learnt at a time."""
        self.contention = Contention()

    async def manifest(self, cid: Cid, holders: tuple[PeerId, ...] = (), timeout: float = MANIFEST_SECONDS) -> Manifest:
        """The manifest, from memory, this node's store, or a node that has it; `ContentNotFound` after `timeout`."""
        return await self._manifests.get(cid, holders, timeout)

    async def estimates(self, state: CoordinatorState, project: str, manifest: Manifest) -> Estimates:
        """Expected seconds of each test of the manifest."""
        model = await self.learn(state, project)
        return model.estimates([test.id for test in manifest.tests], self.contention.contending(project))

    async def learn(self, state: CoordinatorState, project: str) -> Model:
        """What the project's finished runs tell; at once, unless there is a new one."""
        async with self._turn:
            runs = _newest(state, project)
            newest = runs[0].id if runs else RunId(0)
            cached = self._models.get(project)
            if cached is None or cached[0] != newest:
                cached = (newest, await self._model(runs))
                self._models[project] = cached
                self._errors.pop(project, None)
            self._models.move_to_end(project)
            while len(self._models) > MODELS_MAX:
                forgotten, _ = self._models.popitem(last=False)
                self._errors.pop(forgotten, None)
            return cached[1]

    async def error(self, state: CoordinatorState, project: str) -> Error | None:
        """Of the project's newest finished run; None if there are not two whose manifests can be had."""
        await self.learn(state, project)
        async with self._turn:
            if project not in self._errors:
                self._errors[project] = await self._error(_newest(state, project))
            return self._errors[project]

    async def _error(self, runs: Sequence[Run]) -> Error | None:
        actual = await self._records(runs[:1])
        model = await self._model(runs[1:])
        if not actual or not len(model):
            return None
        ((newest,), (run, *_)) = actual, runs
        expected = model.estimates(newest.tests)
        under = 0
        pairs = []
        for test, (took, worker) in enumerate(zip(newest.seconds, newest.workers, strict=True)):
            if took > 0:
                factor = expected.factor(newest.peers[worker])
                pairs.append((expected[test] * factor, took))
                under += took <= expected.high(test) * factor
        if not pairs:
            return None
        pace = math.fsum(took for _, took in pairs) / math.fsum(guess for guess, _ in pairs)
        at_once, at_pace = (
            statistics.median(abs(guess * scale - took) / took for guess, took in pairs) for scale in (1.0, pace)
        )
        return Error(run.id, at_once, len(pairs), under / len(pairs), pace, at_pace)

    async def _model(self, runs: Sequence[Run]) -> Model:
        learning = Learning(await self._records(runs))
        for _ in learning:
            await trio.lowlevel.checkpoint()
        return learning.model

    async def _records(self, runs: Sequence[Run]) -> list[Record]:
        """Of those whose manifests can be had in time; the others are of a mesh that was restored without its
        content."""
        found = []
        deadline = trio.current_time() + HINT_SECONDS
        for run in runs:
            assert run.manifest is not None, "a run with tests has a manifest"
            left = deadline - trio.current_time()
            if left <= 0:
                break
            try:
                manifest = await self.manifest(run.manifest, tuple(run.workers), left)
            except ContentNotFound:
                continue
            found.append(_record(run, manifest))
        return found


def _record(run: Run, manifest: Manifest) -> Record:
    """What abandoned tests took is not known."""
    places: dict[PeerId, int] = {}
    workers = array("H", bytes(2 * run.tests))
    seconds = array("d", bytes(8 * run.tests))
    for done in run.chunks:
        if done.worker:
            place = places.setdefault(done.worker, len(places))
            for test, micros in zip(done.tests, done.durations, strict=True):
                workers[test] = place
                seconds[test] = micros / 1e6
    return Record(run.spec.bundle, [test.id for test in manifest.tests], seconds, workers, tuple(places))


def _newest(state: CoordinatorState, project: str) -> list[Run]:
    """The finished runs that are learnt from, the newest first."""
    found: list[Run] = []
    tests = scanty = 0
    for run in _finished(state, project):
        ran = run.done - run.reused
        if 2 * ran < run.tests:  # it tells little, and must not push out those that tell much
            scanty += 1
            if scanty > SCANTY_MAX:
                continue
        tests += ran
        if found and (tests > TESTS_MAX or len(found) >= RUNS_MAX + min(scanty, SCANTY_MAX)):
            break
        found.append(run)
    return found


def _finished(state: CoordinatorState, project: str) -> Iterator[Run]:
    """Finished runs of a project that have verdicts, the newest first."""
    for run_id in reversed(state.finished):
        run = state.runs[run_id]
        if run.spec.project == project and run.tests and run.done and run.manifest is not None:
            yield run
