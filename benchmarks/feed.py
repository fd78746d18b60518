"""`make bench-feed`: what the feed of events costs a node with ten listeners in a busy run, and how late an event is;
and what ten open pages cost, which also ask for the run and its slowest tests, or its timeline, as it goes on.

Three real nodes on this host run the same suite again and again: with nobody who asks the second node for anything,
with listeners, with pages. What they cost is the difference of its processor time, by second of the run, and the
coordinator's. The suite's tests sleep on the other two nodes, so that the node that is asked has nothing else to do. An
event's delay is from the entry's being applied there, which it tells (`at`), to the listener's having read it.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.measures import load, machine, percentile, spread
from tests.processes.lab import Lab, lab

LISTENERS = 10
TESTS = 3_000
TEST_SECONDS = 0.02
SHARE_MAX = 0.05
DELAY_MAX = 0.5
LOG_EVENTS = ("run-leased", "run-progress", "run-collected")

TEXT = """
import time
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_sleeps(number):
    time.sleep({seconds})
"""


PAGE_SECONDS = 2.0
PAGES = (("", "/tests?sort=duration&order=desc&limit=50"), ("", "/timeline"))
"""What a run's page asks for at most every `PAGE_SECONDS`, when something happened: on its first tab (half of
them), and on that of the timeline."""


class Listener:
    """Reads the feed until the client is closed; a page also asks for what has changed."""

    def __init__(self, url: str, token: str, asked: Sequence[str]) -> None:
        self.run = ""
        self.answers: list[float] = []
        self.delays: list[float] = []
        self.events = 0
        self.bytes = 0
        self._client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=None)
        threading.Thread(target=self._read, daemon=True).start()
        if asked:
            threading.Thread(target=self._ask, args=(asked,), daemon=True).start()

    def _read(self) -> None:
        name = ""
        try:
            with self._client.stream("GET", "/api/events") as answer:
                for line in answer.iter_lines():
                    self.bytes += len(line)
                    key, _, value = line.partition(": ")
                    name = value if key == "event" else name
                    if key == "data":
                        self.events += 1
                        self.run = json.loads(value).get("run") or self.run
                        if name in LOG_EVENTS:
                            self.delays.append(time.time() - json.loads(value)["at"])
        except (httpx.HTTPError, ValueError):
            return  # it was closed

    def _ask(self, asked: Sequence[str]) -> None:
        seen = 0
        try:
            while True:
                time.sleep(PAGE_SECONDS)
                if self.run and self.events > seen:
                    seen = self.events
                    for path in asked:
                        start = time.monotonic()
                        self.bytes += len(self._client.get(f"/api/runs/{self.run}{path}").content)
                        self.answers.append(time.monotonic() - start)
        except (httpx.HTTPError, RuntimeError):
            return  # it was closed

    def close(self) -> None:
        self._client.close()


@dataclass
class Measured:
    seconds: float
    worked: dict[str, float]
    """Processor time of nodes over the run's."""
    listeners: list[Listener]

    def rate(self, number: str) -> float:
        """By second, of each listener."""
        return sum(getattr(listener, number) for listener in self.listeners) / len(self.listeners) / self.seconds


def run(made: Lab, suite: Path, listeners: int = 0, pages: bool = False) -> Measured:
    api = json.loads((made.home("b") / "api.json").read_text())
    listening = [Listener(api["url"], api["token"], PAGES[number % 2] if pages else ()) for number in range(listeners)]
    time.sleep(1.0)
    processes = {name: psutil.Process(made.nodes[name].pid) for name in ("a", "b")}
    before, start = {name: _worked(process) for name, process in processes.items()}, time.monotonic()
    made.mesh("run", str(suite), "--progress", "off", "--requires", "label.work == yes", home="a")
    seconds = time.monotonic() - start
    worked = {name: (_worked(process) - before[name]) / seconds for name, process in processes.items()}
    for listener in listening:
        listener.close()
    return Measured(seconds, worked, listening)


def _worked(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> int:
    print(machine(Path(tempfile.gettempdir())))
    with tempfile.TemporaryDirectory() as name, lab(Path(name)) as made:
        made.start("a", "--label", "work=yes", slots=2)
        made.start("b", "--join", made.ticket("a"))
        made.start("c", "--label", "work=yes", "--join", made.ticket("a"), slots=2)
        made.agreed("a", "b", "c")
        suite = made.suite("feed", TEXT.format(tests=TESTS, seconds=TEST_SECONDS))
        run(made, suite)  # from now on durations are known, and files are where they are needed
        alone, fed, paged = run(made, suite), run(made, suite, LISTENERS), run(made, suite, LISTENERS, pages=True)
    print(f"{TESTS} tests in {alone.seconds:.1f}, {fed.seconds:.1f} and {paged.seconds:.1f} s; {load()}")
    print(f"the node alone: {alone.worked['b']:.1%} of a core (the coordinator: {alone.worked['a']:.1%})")
    shares = []
    for what, measured in (("listeners", fed), ("pages", paged)):
        more = {name: measured.worked[name] - alone.worked[name] for name in alone.worked}
        shares.append(more["b"])
        print(
            f"{LISTENERS} {what} add {more['b']:.1%} (goal: under {SHARE_MAX:.0%}), {more['a']:+.1%} at the coordinator"
        )
        print(f"  to each {measured.rate('events'):.0f} events and {measured.rate('bytes') / 1000:.0f} kB a second")
        delays = [1000 * delay for listener in measured.listeners for delay in listener.delays]
        print(f"  from the entry to the listener: {spread(delays, 'ms', 0)} (goal: under {1000 * DELAY_MAX:.0f})")
    answers = [1000 * answer for listener in paged.listeners for answer in listener.answers]
    print(f"  answers to pages: {spread(answers, 'ms', 0)}")
    late = percentile([delay for listener in fed.listeners for delay in listener.delays], 99)
    return 0 if max(shares) < SHARE_MAX and late < DELAY_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
