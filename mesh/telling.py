"""From a coordinator's progress of a run to the events that a client follows (`GET /api/runs/R/events`)."""

import base64
from collections.abc import Mapping
from typing import Any

from protocols.client import Progress, Verdicts
from protocols.codec import decode
from protocols.ids import Cid, RunId
from protocols.manifests import Chunk, Manifest, Outcome, Record


def told(chunk: Chunk) -> dict[int, dict[str, Any]]:
    """By test, what a client needs to replay it: all of the record but what its packed reports say anyway."""
    told: dict[int, dict[str, Any]] = {}
    for test, data in zip(chunk.tests, chunk.records, strict=True):
        record = decode(data, Record)
        told[test] = {
            "slot": record.slot,
            "started": record.started,
            "phases": [[phase.name, phase.outcome, phase.duration] for phase in record.phases],
        }
        if record.reports:
            told[test]["reports"] = base64.b64encode(record.reports).decode()
        else:
            texts = {name: getattr(record, name) for name in ("message", "longrepr", "stdout", "stderr", "log")}
            told[test] |= {name: text for name, text in texts.items() if text}
    return told


class Teller:
    """Turns progress into events, each test started before its verdict."""

    def __init__(self, run: RunId, cursor: int) -> None:
        self.cursor = cursor
        self.manifest: Manifest | None = None
        self.cid: Cid | None = None
        """The manifest's."""
        self._run = str(run)
        self._started: set[int] = set()

    def _name(self, index: int) -> str:
        assert self.manifest is not None, "verdicts come after the manifest"
        return self.manifest.tests[index].id

    def _event(self, event: str, **fields: Any) -> dict[str, Any]:
        return {"event": event, "run": self._run, **fields, "cursor": self.cursor}

    def collected(self) -> dict[str, Any]:
        assert self.manifest is not None
        return self._event("collected", tests=len(self.manifest.tests), manifest=self.cid)

    def started(self, progress: Progress) -> list[dict[str, Any]]:
        if self.manifest is None:
            return []
        new = [each for each in progress.running if each[0] not in self._started]
        self._started.update(test for test, _, _ in new)
        return [
            self._event("started", test=self._name(test), worker=worker, attempt=attempt)
            for test, worker, attempt in new
        ]

    def verdicts(
        self, verdicts: Verdicts, records: Mapping[int, Cid], told: Mapping[int, dict[str, Any]]
    ) -> list[dict[str, Any]]:
        events = []
        for place, test in enumerate(verdicts.tests):
            name = self._name(test)
            if test not in self._started:
                self._started.add(test)
                attempt = verdicts.attempts[place]
                events.append(self._event("started", test=name, worker=verdicts.worker, attempt=attempt))
            self.cursor += 1
            outcome = Outcome.of_code(verdicts.outcomes[place])
            events.append(
                self._event(
                    "verdict",
                    test=name,
                    outcome=outcome.value,
                    duration=verdicts.durations[place] / 1e6,
                    worker=verdicts.worker,
                    attempt=verdicts.attempts[place],
                    record=records.get(test),
                    **({"reused": True} if not verdicts.worker and outcome is Outcome.PASSED else {}),
                    **({"told": told[test]} if test in told else {}),
                )
            )
        return events
