"""`mesh watch` and `mesh status --watch`: the mesh as it changes. A live screen on a terminal, lines of text elsewhere,
events with `--json`.

The main thread reads the feed; beside it one thread asks now and then what the feed does not tell (why tests wait, what
failed tests are called). Ctrl-C is how one leaves: exit code 0, the terminal as it was.
"""

import argparse
import copy
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from mesh.cli.client import Client
from mesh.cli.feed import feed, keep_asking
from mesh.cli.output import is_terminal, print_json
from mesh.cli.session import connect
from mesh.cli.signals import termination_interrupts
from mesh.views import human
from mesh.views.watching import Failure, Watching
from protocols.errors import MeshError, NodeUnavailable

LOST_SECONDS_MAX = 60.0
"""How long a node that went away is waited for where nobody sees that it did."""

NAMES_MAX = 8
"""Failed tests whose names are looked up at once."""
NAMES_KEPT_MAX = 200

PLAIN_SECONDS = 5.0
"""Between two lines of how far a run is."""

BAD_WORDS = {"failed": "FAILED", "error": "ERROR"}


def watch_mesh(args: argparse.Namespace) -> int:
    client = connect(args)
    try:
        with termination_interrupts():
            if args.json:
                _stream(client)
            elif is_terminal(sys.stdout):
                _show(client)
            else:
                _tell(client)
    except KeyboardInterrupt:
        return 0
    return 0


class _Names:
    """What failed tests are called. Asked once; the feed tells their number alone."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[str, int], str] = {}

    def of(self, failure: Failure) -> str:
        """It is noted there, too."""
        key = (failure.run, failure.index)
        if key not in self._known:
            try:
                told = self._client.get(f"/api/runs/{failure.run}/tests/{failure.index}")["test"]
            except MeshError:  # of a run that was forgotten meanwhile
                told = f"test {failure.index + 1}"
            self._known = dict([*self._known.items(), (key, human.clean(str(told)))][-NAMES_KEPT_MAX:])
        failure.test = self._known[key]
        return failure.test


class _Patience:
    """Gives up on a node that stays away."""

    def __init__(self) -> None:
        self._since: float | None = None

    def lost(self, error: MeshError) -> None:
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > LOST_SECONDS_MAX:
            raise NodeUnavailable(str(error)) from None

    def heard(self) -> None:
        self._since = None


def _stream(client: Client) -> None:
    patience = _Patience()
    for name, data, identity in feed(client, patience.lost):
        patience.heard()
        print_json({"event": name, **data} if identity is None else {"event": name, "id": identity, **data})


def _tell(client: Client) -> None:
    """Lines, for a file or a pipe."""
    patience, watching, names = _Patience(), Watching(), _Names(client)
    said: dict[str, float] = {}
    for name, data, _ in feed(client, patience.lost):
        patience.heard()
        before = copy.copy(watching)
        watching.take(name, data)
        failures = reversed(watching.unnamed(NAMES_MAX))
        lines = [f"{BAD_WORDS[one.outcome]} {names.of(one)} (run {one.run})" for one in failures]
        run = str(data.get("run"))
        if name != "run-progress" or time.monotonic() - said.get(run, float("-inf")) > PLAIN_SECONDS:
            lines += watching.lines(name, data, before)
            said[run] = time.monotonic()
        for line in lines:
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
        said = {run: at for run, at in said.items() if run in watching.runs}


def _show(client: Client) -> None:
    from mesh.cli.live_screen import Screen

    watching, lock, stop, news = Watching(), threading.Lock(), threading.Event(), threading.Event()

    def lost(error: MeshError) -> None:
        with lock:
            watching.lost_at = watching.lost_at or time.time()

    document = client.get("/api/status")  # what is wrong is said before the screen is taken
    watching.take_status(document)
    asking = threading.Thread(target=_ask, args=(client, watching, lock, stop, news), daemon=True)
    with Screen(watching, lock):
        asking.start()
        try:
            for name, data, _ in feed(client, lost):
                _take(client, watching, lock, name, data)
                news.set()
        finally:
            stop.set()
            news.set()


def _take(client: Client, watching: Watching, lock: threading.Lock, name: str, data: dict[str, Any]) -> None:
    document = None
    if name == "hello":  # the first time, or after a loss: what was missed is told, or not known any more
        with suppress(MeshError):
            document = client.get("/api/status")
    with lock:
        watching.lost_at = None
        if document is not None:
            watching.take_status(document)
        watching.take(name, data)


def _ask(
    client: Client, watching: Watching, lock: threading.Lock, stop: threading.Event, news: threading.Event
) -> None:
    """Until `stop`: what waits and why, and the names of tests that failed."""
    names = _Names(client)
    looked: set[str] = set()

    def ask() -> None:
        queue = client.get("/api/queue")
        with lock:
            watching.take_queue(queue)
            wanted = watching.unnamed(NAMES_MAX)
            began_before = [run for run in watching.failing_unseen() if run not in looked]
        for one in wanted:
            names.of(one)
        for run in began_before:
            looked.add(run)
            told = client.get(f"/api/runs/{run}/tests?outcome=bad&limit={NAMES_MAX}")["tests"]
            with lock:
                watching.take_bad(run, told)

    keep_asking(ask, stop, news)
