"""Real nodes that lose their coordinator, and real nodes that should keep it.

Failover is measured as a client sees it: from the return of SIGKILL to the first answer, of any survivor, to a request
that was sent after the kill and needs a commit (cancelling a run that is over: it changes nothing, and is an entry of
the log all the same). So detection, election, the new term's no-op, the way through a survivor's API and its retries
are all in it. Rejected: the nodes' own logs of who leads; a leader that commits nothing is no coordinator.

Keeping is measured by the term: each campaign that a majority would hear of raises it.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mesh.cli.client import Client, read_endpoint
from protocols.errors import MeshError
from tests.processes.lab import Lab, lab, slow_suite

NAMES = "abcde"
ANSWER_SECONDS_MAX = 20.0
"""For the first commit after a kill."""
PROBE_SECONDS = 0.01
"""Between two requests of a survivor, while there is no coordinator to answer them."""
PAUSE_SECONDS = 0.1
"""Between two looks at a run, and two runs."""
SETTLE_SECONDS = 1.5
"""After everybody agrees again; the killed node is a follower like the others by then."""


class Mesh:
    """The nodes of a lab, asked over HTTP from inside this process (a command would cost half a second of a core)."""

    def __init__(self, made: Lab, names: Sequence[str]) -> None:
        self.lab = made
        self.names = list(names)
        self.submitting = threading.Lock()
        """Held while a node takes a submission: a command whose node dies would start one of its own in that home."""

    def client(self, name: str, timeout: float = 10.0) -> Client | None:
        home = self.lab.home(name)
        endpoint = read_endpoint(home)
        return Client(home, endpoint, timeout) if endpoint else None

    def status(self, name: str) -> dict[str, Any]:
        """Empty while the node does not answer."""
        client = self.client(name)
        if client is None:
            return {}
        try:
            found: dict[str, Any] = client.get("/api/status")
        except MeshError:
            return {}
        return found

    def settle(self) -> dict[str, Any]:
        """Wait until all agree on who coordinates and who votes, and see each other; what they agree on."""
        seen: list[dict[str, Any]] = []

        def agree() -> bool:
            seen[:] = [self.status(name) for name in self.names]
            views = {(s.get("mesh"), s.get("coordinator"), s.get("term")) for s in seen}
            alive = [sum(node["state"] == "alive" for node in s.get("nodes", ())) for s in seen]
            voters = {len(s.get("voters", ())) for s in seen}
            wanted = len(self.names) if len(self.names) % 2 else len(self.names) - 1
            return (
                len(views) == 1
                and bool(seen[0].get("coordinator"))
                and set(alive) == {len(self.names)}
                and voters == {wanted}
            )

        self.lab.until(agree, f"{', '.join(self.names)} agree, and {len(self.names)} vote")
        return seen[0]

    def name_of(self, peer: str) -> str:
        return next(name for name in self.names if self.lab.peer(name) == peer)


@contextlib.contextmanager
def mesh_of(folder: Path, number: int) -> Iterator[Mesh]:
    """`number` voters with default settings."""
    folder.mkdir(exist_ok=True)
    names = NAMES[:number]
    with lab(folder) as made:
        made.start(names[0])
        ticket = made.ticket(names[0])
        for name in names[1:]:
            made.start(name, "--join", ticket)
        mesh = Mesh(made, names)
        mesh.settle()
        yield mesh


@contextlib.contextmanager
def busy(mesh: Mesh, suite: Path) -> Iterator[None]:
    """A suite is run in the mesh again and again, submitted at one node after the other, of those that live."""
    stop = threading.Event()

    def submit(number: int) -> tuple[Client, str] | None:
        order = (mesh.names[(number + i) % len(mesh.names)] for i in range(len(mesh.names)))
        with mesh.submitting:
            found = next(((name, client) for name in order if (client := mesh.client(name)) is not None), None)
            if found is None:
                return None
            done = mesh.lab.mesh("run", str(suite), "--json", "--detach", home=found[0], check=False)
        return (found[1], json.loads(done.stdout)["run"]) if done.returncode == 0 else None

    def goes_on(client: Client, run: str) -> bool:
        with contextlib.suppress(MeshError):
            return client.get(f"/api/runs/{run}").get("exit_code") is None
        return False

    def work() -> None:
        number = 0
        while not stop.wait(PAUSE_SECONDS):
            number += 1
            submitted = submit(number)
            while submitted is not None and goes_on(*submitted) and not stop.wait(PAUSE_SECONDS):
                continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def burners(number: int) -> Iterator[None]:
    """Processes that do nothing but take a core each, at the priority of everything else."""
    loop = "while True: sum(range(10_000))"
    running = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def commit(client: Client, run: str) -> None:
    client.post(f"/api/runs/{run}/cancel", {})


class Proposers:
    """Clients that commit something through each node, one request after the other, for as long as it lives."""

    def __init__(self, mesh: Mesh, run: str) -> None:
        self._mesh = mesh
        self._run = run
        self._stop = threading.Event()
        self.answered = 0

    def __enter__(self) -> "Proposers":
        self._threads = [threading.Thread(target=self._work, args=(name,)) for name in self._mesh.names]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, name: str) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            client = self._mesh.client(name)
            with contextlib.suppress(MeshError):
                if client is not None:
                    commit(client, self._run)
                    self.answered += 1


def first_commit(mesh: Mesh, survivors: Sequence[str], run: str, since: float) -> float:
    """Seconds from `since` to the first commit that a survivor confirms; all requests are sent from now on."""
    answers: SimpleQueue[float] = SimpleQueue()
    over = threading.Event()

    def probe(name: str) -> None:
        while not over.is_set():
            client = mesh.client(name, ANSWER_SECONDS_MAX)
            try:
                assert client is not None, f"{name} has no API"
                commit(client, run)
            except MeshError:
                over.wait(PROBE_SECONDS)
                continue
            answers.put(time.monotonic())
            return

    threads = [threading.Thread(target=probe, args=(name,)) for name in survivors]
    for thread in threads:
        thread.start()
    try:
        return answers.get(timeout=ANSWER_SECONDS_MAX) - since
    except Empty:
        raise AssertionError(f"nothing was committed within {ANSWER_SECONDS_MAX} s\n{mesh.lab.logs()}") from None
    finally:
        over.set()
        for thread in threads:
            thread.join()


@dataclass(slots=True)
class Failovers:
    seconds: list[float]
    idle: list[float]
    """The same request with the coordinator there: what the way through HTTP and back takes."""
    terms: list[int]
    """Between two kills: 1 is one election, won at once."""


def failovers(folder: Path, voters: int, kills: int) -> Failovers:
    """Kill the coordinator again and again, under a run of a suite and with clients at every node."""
    made = Failovers([], [], [])
    slow_suite(folder / "suite", modules=6, tests=20, seconds=0.05)
    slow_suite(folder / "first", modules=1, tests=1, seconds=0.0)
    with mesh_of(folder, voters) as mesh:
        run = json.loads(mesh.lab.mesh("run", str(folder / "first"), "--json", "--detach", home="a").stdout)["run"]
        with busy(mesh, folder / "suite"), Proposers(mesh, run):
            term = mesh.settle()["term"]
            for _ in range(kills):
                status = mesh.settle()
                victim = mesh.name_of(status["coordinator"])
                survivors = [name for name in mesh.names if name != victim]
                client = mesh.client(survivors[0])
                assert client is not None
                for _ in range(5):
                    start = time.monotonic()
                    commit(client, run)
                    made.idle.append(time.monotonic() - start)
                killed = kill(mesh, victim)
                made.seconds.append(first_commit(mesh, survivors, run, killed))
                mesh.lab.start(victim)
                now = mesh.settle()["term"]
                made.terms.append(now - term)
                term = now
                print(f"  {victim} killed: {made.seconds[-1]:.2f} s, {made.terms[-1]} election(s)", flush=True)
                time.sleep(SETTLE_SECONDS)
    return made


def kill(mesh: Mesh, victim: str) -> float:
    """When the process was gone, on the monotonic clock."""
    with mesh.submitting:
        os.kill(mesh.lab.nodes[victim].pid, 9)
        at = time.monotonic()
        mesh.lab.nodes[victim].wait()
        (mesh.lab.home(victim) / "api.json").unlink(missing_ok=True)
    return at


def quiet_terms(folder: Path, minutes: float) -> tuple[int, int]:
    """The term of an idle mesh of three, before and after."""
    with mesh_of(folder, 3) as mesh:
        before = mesh.settle()["term"]
        time.sleep(minutes * 60)
        return before, mesh.settle()["term"]


def loaded_terms(folder: Path, minutes: float, burning: int) -> tuple[int, int]:
    """The same with a suite that burns processor time in every slot, and `burning` processes beside it."""
    suite = folder / "suite"
    suite.mkdir(parents=True)
    (suite / "pytest.ini").write_text("[pytest]\n")
    (suite / "test_burn.py").write_text(
        "import pytest\n\n@pytest.mark.parametrize('n', range(400))\ndef test_burn(n):\n"
        "    assert sum(range(3_000_000)) > 0\n"
    )
    with mesh_of(folder, 3) as mesh:
        before = mesh.settle()["term"]
        with busy(mesh, suite), burners(burning):
            time.sleep(minutes * 60)
        return before, mesh.settle()["term"]
