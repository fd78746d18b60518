"""What the tries of a test say together: whether it is the test that is broken, or a host, or neither for sure.

`failed`: bad wherever it ran. `host`: bad on some workers and not on another one, where it was never bad. `flaky`: it
was bad and then was not, on the same worker. A test that was not bad in its only try has no truth to tell.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.state.model import Run
from protocols.ids import Cid, PeerId
from protocols.manifests import Outcome

NAME_CHARACTERS = 8
"""Of the peer ID of a worker whose name is forgotten."""


class Truth(enum.StrEnum):
    FAILED = "failed"
    FLAKY = "flaky"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Try:
    """One that ended with an outcome; `number` counts those that did not, too."""

    worker: PeerId
    """Empty: no worker ended it (an abandoned test)."""
    outcome: Outcome
    number: int
    record: Cid | None = None
    reruns: int = 0
    """Tries that were bad before it in the same process."""


def earlier_tries(run: Run) -> dict[int, list[Try]]:
    """Test -> its bad tries before the verdict, in their order."""
    found: dict[int, list[Try]] = {}
    for tried in run.tries:
        for test, code, attempt in zip(tried.tests, tried.outcomes, tried.attempts, strict=True):
            found.setdefault(test, []).append(Try(tried.worker, Outcome.of_code(code), attempt))
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to tell of a test that was tried more than once."""

    truth: Truth
    tries: tuple[Try, ...]
    """Those that are known, the verdict's last."""

    @property
    def flaky(self) -> bool:
        """Whether it was bad, and in the end was not."""
        return self.truth is not Truth.FAILED

    @property
    def blamed(self) -> tuple[PeerId, ...]:
        """The workers that it is bad on, if that is why: in the order of its tries, each once."""
        if self.truth is not Truth.HOST:
            return ()
        return tuple(dict.fromkeys(one.worker for one in self.tries if one.outcome.bad))

    def properties(self, names: Mapping[PeerId, str]) -> list[tuple[str, str]]:
        """For junit.xml."""
        hosts = [("mesh.blamed_host", host_name(worker, names)) for worker in self.blamed]
        return [("mesh.truth", self.truth.value), *hosts]

    def document(self, names: Mapping[PeerId, str]) -> dict[str, Any]:
        """For a report."""
        return {
            "truth": self.truth.value,
            "attempts": [
                {
                    "attempt": one.number,
                    "worker": one.worker or None,
                    "name": host_name(one.worker, names),
                    "outcome": one.outcome.value,
                    "reruns": one.reruns,
                    "record": one.record,
                }
                for one in self.tries
            ],
            "blamed_hosts": [host_name(worker, names) for worker in self.blamed],
        }


def host_name(worker: PeerId, names: Mapping[PeerId, str]) -> str:
    """Of a node whose name may be forgotten."""
    return names.get(worker) or f"…{worker[-NAME_CHARACTERS:]}"


def truth(tries: Sequence[Try]) -> Truth | None:
    """Of a test with these tries, the verdict's last. None: it was not bad, and was tried once."""
    last = tries[-1]
    bad_on = {one.worker for one in tries if one.outcome.bad or one.reruns}
    if last.outcome.bad:
        return Truth.FAILED
    if not bad_on:
        return None
    return Truth.FLAKY if last.worker in bad_on else Truth.HOST
