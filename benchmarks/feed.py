"""`make bench-feed`: what the feed of events costs a node with ten listeners in a busy run, and how late an event is.

Three real nodes on this host run the same suite twice: with nobody listening to the second node, and with ten. What the
listeners cost is the difference of that node's processor time, by second of the run. The suite's tests sleep on the
other two nodes, so that the node that is listened to has nothing else to do. An event's delay is from the entry's
being applied there, which it tells (`at`), to the listener's having read it.
"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil

from benchmarks.measures import load, machine, percentile, spread
from tests.processes.lab import Lab, lab

LISTENERS = 10
TESTS = 3_000
TEST_SECONDS = 0.02
SHARE_MAX = 0.05
DELAY_MAX = 0.1
LOG_EVENTS = ("run-leased", "run-progress", "run-collected")

TEXT = """
import time
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_sleeps(number):
    time.sleep({seconds})
"""


class Listener:
    """Reads the feed until the client is closed."""

    def __init__(self, url: str, token: str) -> None:
        self.delays: list[float] = []
        self.events = 0
        self.bytes = 0
        self._client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=None)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

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
                        if name in LOG_EVENTS:
                            self.delays.append(time.time() - json.loads(value)["at"])
        except (httpx.HTTPError, ValueError):
            return  # it was closed

    def close(self) -> None:
        self._client.close()


def run(made: Lab, suite: Path, listeners: int) -> tuple[float, float, list[Listener]]:
    """Seconds that the run took, and that the second node worked meanwhile."""
    api = json.loads((made.home("b") / "api.json").read_text())
    listening = [Listener(api["url"], api["token"]) for _ in range(listeners)]
    time.sleep(1.0)
    process = psutil.Process(made.nodes["b"].pid)
    before, start = process.cpu_times(), time.monotonic()
    made.mesh("run", str(suite), "--progress", "off", "--requires", "label.work == yes", home="a")
    seconds, after = time.monotonic() - start, process.cpu_times()
    for listener in listening:
        listener.close()
    return seconds, after.user + after.system - before.user - before.system, listening


def main() -> int:
    print(machine(Path(tempfile.gettempdir())))
    with tempfile.TemporaryDirectory() as name, lab(Path(name)) as made:
        made.start("a", "--label", "work=yes", slots=2)
        made.start("b", "--join", made.ticket("a"))
        made.start("c", "--label", "work=yes", "--join", made.ticket("a"), slots=2)
        made.agreed("a", "b", "c")
        suite = made.suite("feed", TEXT.format(tests=TESTS, seconds=TEST_SECONDS))
        run(made, suite, 0)  # from now on durations are known, and files are where they are needed
        seconds, worked, _ = run(made, suite, 0)
        alone = worked / seconds
        seconds, worked, listening = run(made, suite, LISTENERS)
        share = worked / seconds - alone
    delays = [delay for listener in listening for delay in listener.delays]
    told = sum(listener.events for listener in listening) / LISTENERS / seconds
    size = sum(listener.bytes for listener in listening) / LISTENERS / seconds
    print(f"{TESTS} tests in {seconds:.1f} s; {told:.0f} events and {size / 1000:.1f} kB a second to each; {load()}")
    print(
        f"the node alone: {alone:.1%} of a core; {LISTENERS} listeners add {share:.1%}   (goal: under {SHARE_MAX:.0%})"
    )
    told_in = spread([1000 * delay for delay in delays], "ms", 0)
    print(f"from the entry to the listener: {told_in}   (goal: 99 % under {1000 * DELAY_MAX:.0f})")
    return 0 if share < SHARE_MAX and percentile(delays, 99) < DELAY_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
