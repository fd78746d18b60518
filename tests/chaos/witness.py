"""Who saw what: threads that look at each node from within its host, and follow runs, through the HTTP API that every
command uses. What they keep is the public half of a history."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mesh.cli.client import Client, read_endpoint
from protocols.errors import MeshError
from tests.chaos.histories import Stream
from tests.chaos.lan import enter
from tests.processes.lab import Lab

LOOK_SECONDS = 1.0
ANSWER_SECONDS_MAX = 5.0
STREAM_SECONDS_MAX = 360.0
RETRY_SECONDS = 0.3
STOP_SECONDS_MAX = 5.0


@dataclass
class Seen:
    """The events of one run at one place, with the time of each; safe to read while it grows."""

    run: str
    where: str
    events: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ended: str = ""
    """Why no more come; empty while they may."""

    def take(self, event: dict[str, Any]) -> None:
        self.run = self.run or str(event["run"])
        self.times.append(time.monotonic())
        self.events.append(event)

    @property
    def whole(self) -> bool:
        return bool(self.events) and self.events[-1]["event"] == "finished"

    @property
    def verdicts(self) -> int:
        return sum(event["event"] == "verdict" for event in list(self.events))

    @property
    def tests(self) -> int:
        """How many the run has; 0 until that is known."""
        return max((event["tests"] for event in list(self.events) if event["event"] == "collected"), default=0)

    def stream(self) -> Stream:
        return Stream(self.run, self.where, tuple(self.events), self.whole)


class Witness:
    """One lab's. `namespace` gives a node's host."""

    def __init__(self, made: Lab, namespace: Callable[[str], str]) -> None:
        self._made = made
        self._namespace = namespace
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._processes: list[subprocess.Popen[str]] = []
        self.statuses: list[tuple[float, str, dict[str, Any]]] = []
        self.seen: list[Seen] = []

    def look(self, *names: str) -> None:
        """Keep an eye on these nodes' status until `stop`."""
        for name in names:
            self._start(lambda name=name: self._looking(name))

    def follow(self, run: str, name: str) -> Seen:
        """Follow a run at a node to its end."""
        seen = Seen(run, name)
        self.seen.append(seen)
        self._start(lambda: self._following(seen, name))
        return seen

    def submit(self, suite: str, name: str) -> Seen:
        """`mesh run` at a node."""
        seen = Seen("", f"mesh run at {name}")
        self._start(lambda: self._submitting(seen, suite, name))
        return seen

    def report(self, run: str, name: str) -> dict[str, Any] | None:
        """`report.json` of a run that is over, by the CID that this node tells."""
        found: list[dict[str, Any]] = []

        def fetch() -> None:
            with contextlib.suppress(MeshError):
                found.extend(self._report(run, name))

        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(2 * ANSWER_SECONDS_MAX)
        return found[0] if found else None

    def stop(self) -> None:
        self._stop.set()
        for process in self._processes:
            process.kill()
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))  # one that waits for a node that is gone is let be

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _client(self, name: str, timeout: float) -> Client | None:
        endpoint = read_endpoint(self._made.home(name))
        return None if endpoint is None else Client(self._made.home(name), endpoint, timeout)

    def _report(self, run: str, name: str) -> Iterator[dict[str, Any]]:
        enter(self._namespace(name))
        client = self._client(name, ANSWER_SECONDS_MAX)
        if client is not None:
            cid = client.get(f"/api/runs/{run}")["report"]
            yield json.loads(b"".join(client.read(cid, "report.json")))

    def _looking(self, name: str) -> None:
        enter(self._namespace(name))
        while not self._stop.wait(LOOK_SECONDS):
            try:
                client = self._client(name, ANSWER_SECONDS_MAX)
                if client is not None:
                    self.statuses.append((time.monotonic(), name, client.get("/api/status")))
            except MeshError:
                continue  # it is dead, stopped, or starting: that is what we are here for

    def _following(self, seen: Seen, name: str) -> None:
        enter(self._namespace(name))
        deadline = time.monotonic() + STREAM_SECONDS_MAX
        cursor = 0
        while not seen.whole and time.monotonic() < deadline and not self._stop.is_set():
            try:
                client = self._client(name, deadline - time.monotonic())
                for event in client.events(seen.run, cursor) if client is not None else ():
                    cursor = event["cursor"]
                    seen.take(event)
                seen.ended = "finished"
            except MeshError as error:
                seen.ended = str(error)
            self._stop.wait(RETRY_SECONDS)

    def _submitting(self, seen: Seen, suite: str, name: str) -> None:
        """The events of `mesh run --json`; a node that goes away for longer than it waits ends it."""
        options = {key: value for key, value in self._made.options().items() if key != "capture_output"}
        command = self._made.command("run", suite, "--json", home=name)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options
        ) as process:
            self._processes.append(process)
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                seen.take(json.loads(line))
                if len(seen.events) == 1:
                    self.seen.append(seen)
            seen.ended = process.stderr.read().strip() or "finished"
