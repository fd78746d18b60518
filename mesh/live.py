"""Live output of running tests, for `mesh logs -f`: read from the worker that runs a test while it runs, and from its
record when it has ended, so that nothing between the last look and the verdict is missed.

Any node can do it: who runs what is asked of the coordinator, like a run's other events. Nothing is kept anywhere but
the place in each stream; a test that prints faster than its reader takes it is skipped ahead in, and that is said.
"""

import codecs
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from mesh.ports import Content, Network
from protocols.client import Follow, Progress, Verdicts
from protocols.codec import decode, encode
from protocols.errors import MeshError, NodeUnavailable, RemoteCallError, UsageError
from protocols.ids import PeerId, RunId, TestIndex
from protocols.manifests import Chunk, Manifest, Outcome, Record
from protocols.work import PROTOCOL, Refused, Tailed, TailTest

LOOK_SECONDS = 0.5
"""Between two looks at a test that runs."""

WATCHED_MAX = 64
"""Tests looked at in one round; the rest have to wait for a later one, or for their record."""

STREAMS = ("stdout", "stdout", "stderr", "stderr")
"""What each piece of a `Tailed` belongs to."""


@dataclass(slots=True)
class _Place:
    """How much of a test's output was told."""

    attempt: int
    offsets: tuple[int, ...] = ()
    skipped: bool = False
    decoders: tuple[Any, ...] = field(
        default_factory=lambda: tuple(codecs.getincrementaldecoder("utf-8")("backslashreplace") for _ in STREAMS)
    )


class LiveOutput:
    """The output of one run's tests, from now to the end."""

    def __init__(
        self,
        *,
        network: Network,
        content: Content,
        ask: Callable[[Follow], Awaitable[Progress]],
        manifest: Callable[[Progress], Awaitable[Manifest]],
        run: RunId,
        test: str,
    ) -> None:
        self._network = network
        self._content = content
        self._ask = ask
        self._load_manifest = manifest
        self._run = run
        self._wanted = test
        self._manifest: Manifest | None = None
        self._places: dict[TestIndex, _Place] = {}
        self._alone = False
        """Whether one test was named: its end is the end."""

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """{"event": "output", "test", "stream", "text"} as it comes, and "verdict" of each test that was told of; to
        the end of the run, or of the one test named."""
        cursor, phase = 0, ""
        while True:
            progress = await self._ask(Follow(self._run, cursor, phase, LOOK_SECONDS))
            cursor, phase = cursor + sum(len(verdicts.tests) for verdicts in progress.verdicts), progress.phase
            if progress.manifest is not None and self._manifest is None:
                self._manifest = await self._load_manifest(progress)
                self._check_name()
            for verdicts in progress.verdicts:
                for event in await self._ends(verdicts):
                    yield event
                    if self._alone and event["event"] == "verdict":
                        return
            if progress.final:
                return
            watched = [entry for entry in progress.running if self._is_wanted(entry[0])][:WATCHED_MAX]
            for test, peer, attempt in watched:
                for event in await self._more(test, peer, attempt):
                    yield event
            if watched:
                await trio.sleep(LOOK_SECONDS / 2)

    def _name(self, test: TestIndex) -> str:
        assert self._manifest is not None
        return self._manifest.tests[test].id

    def _check_name(self) -> None:
        assert self._manifest is not None
        names = [test.id for test in self._manifest.tests]
        self._alone = self._wanted in names
        if self._wanted and not any(self._wanted in name for name in names):
            raise UsageError(f"run {self._run} has no test {self._wanted!r}")

    def _is_wanted(self, test: TestIndex) -> bool:
        if self._manifest is None:
            return False
        return self._name(test) == self._wanted if self._alone else self._wanted in self._name(test)

    async def _more(self, test: TestIndex, peer: PeerId, attempt: int) -> list[dict[str, Any]]:
        place = self._places.get(test)
        if place is None or place.attempt != attempt:
            place = self._places[test] = _Place(attempt)
        try:
            request = TailTest(self._run, test, place.offsets)
            answer = decode(await self._network.call(peer, PROTOCOL, encode(request)), Tailed, Refused)
        except (NodeUnavailable, RemoteCallError):
            return []
        if isinstance(answer, Refused) or len(answer.pieces) != len(STREAMS):
            return []
        place.offsets = answer.offsets
        events = []
        if answer.skipped:
            place.skipped = True
            events.append(self._output(test, "stdout", f"\n[... {answer.skipped} bytes left out ...]\n"))
        for stream, decoder, piece in zip(STREAMS, place.decoders, answer.pieces, strict=True):
            text = decoder.decode(piece)
            if text:
                events.append(self._output(test, stream, text))
        return events

    async def _ends(self, verdicts: Verdicts) -> list[dict[str, Any]]:
        """What is left to tell of tests that have ended. Those that were never seen to run: if named."""
        ended = [
            place
            for place, test in enumerate(verdicts.tests)
            if test in self._places or (self._wanted and self._is_wanted(test))
        ]
        if not ended:
            return []
        records = await self._records(verdicts)
        events: list[dict[str, Any]] = []
        for place in ended:
            test = verdicts.tests[place]
            record = records.get(test)
            if record is not None:
                events += self._rest(test, record)
            self._places.pop(test, None)
            outcome = Outcome.of_code(verdicts.outcomes[place]).value
            seconds = verdicts.durations[place] / 1e6
            events.append(self._event("verdict", test, outcome=outcome, duration=seconds))
        return events

    def _rest(self, test: TestIndex, record: Record) -> list[dict[str, Any]]:
        """A record's output without what was told; none of it if some of it is gone."""
        told = self._places.get(test, _Place(record.attempt))
        if told.attempt != record.attempt or (told.offsets and (told.skipped or record.dropped)):
            return []
        captured_out, loose_out, captured_err, loose_err = told.offsets or (0,) * len(STREAMS)
        events = []
        for stream, text, captured, loose in (
            ("stdout", record.stdout, captured_out, loose_out),
            ("stderr", record.stderr, captured_err, loose_err),
        ):
            data = text.encode()
            rest = data[captured : len(data) - loose].decode(errors="replace")
            if rest:
                events.append(self._output(test, stream, rest))
        return events

    async def _records(self, verdicts: Verdicts) -> dict[TestIndex, Record]:
        try:
            holders = (verdicts.worker,) if verdicts.worker else ()
            chunk = decode(await self._content.get(verdicts.chunk, holders), Chunk)
        except MeshError:
            return {}
        return {test: decode(data, Record) for test, data in zip(chunk.tests, chunk.records, strict=True)}

    def _output(self, test: TestIndex, stream: str, text: str) -> dict[str, Any]:
        return self._event("output", test, stream=stream, text=text)

    def _event(self, event: str, test: TestIndex, **fields: Any) -> dict[str, Any]:
        return {"event": event, "run": str(self._run), "test": self._name(test), **fields}
