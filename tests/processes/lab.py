"""A lab of real `node.py` processes on this host: one home each, under a temporary directory, with a swarm key of its
own, so that it never meets another mesh. Leaving it kills every process and asserts that none is left."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]

SAME_STROKE_SECONDS = 0.6
"""Two signals that come closer together are one to a node."""

PATIENCE = 60.0
"""Seconds for what takes one or two on an idle machine."""


class Lab:
    """Nodes by name; "a" is started first, and the others join it by its ticket unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.prefix: dict[str, Sequence[str]] = {}
        """What runs a node's commands: `ip netns exec NAME`, where it has a host of its own."""
        self.variables: dict[str, dict[str, str]] = {}
        """What a node has in its environment beside what all have: PYTEST_PLUGINS, where its suites need some."""
        self._environment = {
            **os.environ,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # ours import hypothesis and trio: 0.8 s of CPU for each suite
            "COLUMNS": "120",
        }
        self._environment.pop("MESH_HOME", None)

    def home(self, name: str) -> Path:
        return self.folder / "homes" / name

    def start(self, name: str, *flags: str, mdns: bool = False, slots: int = 1) -> None:
        """Start a node; returns at once."""
        (self.home(name) / "api.json").unlink(missing_ok=True)
        log = (self.folder / f"{name}.log").open("ab")
        command = [
            *self.prefix.get(name, ()), sys.executable, str(ROOT / "node.py"), "--role", "auto",
            "--home", str(self.home(name)), "--slots", str(slots), "--mdns" if mdns else "--no-mdns", *flags,
        ]  # fmt: skip
        with log:
            self.nodes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**self._environment, **self.variables.get(name, {})},
                cwd=self.folder,
                start_new_session=True,
            )

    def form(self, *names: str, slots: int = 1) -> None:
        """Start nodes that join the first by ticket, and wait until all agree on one mesh of voters."""
        self.start(names[0], slots=slots)
        ticket = self.ticket(names[0])
        for name in names[1:]:
            self.start(name, "--join", ticket, slots=slots)
        self.agreed(*names)

    def ticket(self, name: str) -> str:
        self.until(lambda: (self.home(name) / "api.json").exists(), f"{name} listens")
        return self.mesh("ticket", home=name).stdout.strip()

    def agreed(self, *names: str) -> list[dict[str, Any]]:
        """Every node's status, once all of them name the same mesh, coordinator and voters, and see all nodes alive."""
        found: list[dict[str, Any]] = []

        def agree() -> bool:
            found[:] = [status for name in names if (status := self.status(name))]
            views = {
                (s["mesh"], s["coordinator"], tuple(s["voters"]), sum(n["state"] == "alive" for n in s["nodes"]))
                for s in found
            }
            return (
                len(found) == len(names)
                and len(views) == 1
                and all(s["coordinator"] for s in found)
                and len(found[0]["voters"]) >= (3 if len(names) >= 3 else 1)
                and sum(n["state"] == "alive" for n in found[0]["nodes"]) == len(names)
            )

        self.until(agree, f"{', '.join(names)} agree")
        return found

    def status(self, name: str) -> dict[str, Any] | None:
        """What `mesh status --json` would say, if it said anything; without the start of a process, where a node is
        looked at again and again."""
        if name in self.prefix:
            done = self.mesh("status", "--json", home=name, check=False)
            return json.loads(done.stdout) if done.returncode == 0 else None
        try:
            api = json.loads((self.home(name) / "api.json").read_text())
            request = urllib.request.Request(
                f"{api['url']}/api/status", headers={"authorization": f"Bearer {api['token']}"}
            )
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)
        except (OSError, http.client.HTTPException):  # it does not listen yet, or not any more
            return None

    def coordinator(self, *names: str) -> str:
        """Which of these nodes coordinates."""
        peers = {self.peer(name): name for name in names}
        return peers[self.agreed(*names)[0]["coordinator"]]

    def peer(self, name: str) -> str:
        return str(json.loads((self.home(name) / "api.json").read_text())["peer"])

    def mesh(
        self, *arguments: str, home: str | None = None, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a `mesh` command to its end."""
        done = subprocess.run(self.command(*arguments, home=home), **self.options(), timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"mesh {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def command(self, *arguments: str, home: str | None = None) -> list[str]:
        split = arguments.index("--") if "--" in arguments else len(arguments)
        where = ("--home", str(self.home(home))) if home else ()
        prefix = self.prefix.get(home, ()) if home else ()
        return [*prefix, sys.executable, "-m", "mesh", *arguments[:split], *where, *arguments[split:]]

    def options(self) -> dict[str, Any]:
        return {"env": self._environment, "cwd": self.folder, "text": True, "capture_output": True}

    def events(self, *arguments: str, home: str) -> Iterator[dict[str, Any]]:
        """The JSON lines of a streaming command, as they come."""
        options = {key: value for key, value in self.options().items() if key != "capture_output"}
        command = self.command(*arguments, "--json", home=home)
        with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.strip():
                        yield json.loads(line)
            finally:
                process.kill()

    def suite(self, name: str, text: str) -> Path:
        """A suite of one file, in this lab's folder."""
        suite = self.folder / name
        suite.mkdir()
        (suite / "pytest.ini").write_text("[pytest]\n")
        (suite / f"test_{name}.py").write_text(text)
        return suite

    def detached(self, suite: Path, home: str, *options: str) -> str:
        """Submit a suite and leave; the run."""
        return str(json.loads(self.mesh("run", str(suite), "--detach", "--json", *options, home=home).stdout)["run"])

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        self.nodes[name].send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            self.nodes[name].wait(timeout=PATIENCE)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Look again and again, with what a look costs as the pause."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}\n{self.logs()}"
            for process in self.nodes.values():
                try:
                    process.wait(timeout=0.05)  # a pause that ends early when a node dies
                except subprocess.TimeoutExpired:
                    break

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        """End every node: the first SIGTERM asks it to leave in order, the second one not to wait for that."""
        for _ in range(2):
            for process in self.nodes.values():
                if process.poll() is None:
                    process.terminate()
            for process in self.nodes.values():
                try:
                    process.wait(timeout=SAME_STROKE_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        for process in self.nodes.values():
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def leftovers(self) -> list[str]:
        """Processes that still run somewhere below this lab's folder."""
        left = []
        for process in psutil.process_iter(["cmdline", "pid"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(self.folder) in line and process.pid != os.getpid():
                left.append(line)
        return left


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A lab, and nothing of it left behind."""
    made = Lab(folder)
    try:
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.close()
    made.until(lambda: not made.leftovers(), "every process is gone")


def slow_suite(folder: Path, modules: int = 10, tests: int = 8, seconds: float = 0.12) -> list[str]:
    """A suite whose tests take their time; its node IDs."""
    names = []
    folder.mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for module in range(modules):
        lines = ["import time", "import pytest", f"@pytest.mark.parametrize('n', range({tests}))", "def test_slow(n):"]
        (folder / f"test_m{module:02}.py").write_text("\n".join([*lines, f"    time.sleep({seconds})", ""]))
        names += [f"test_m{module:02}.py::test_slow[{n}]" for n in range(tests)]
    return names


def finished_once(events: list[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Asserts one verdict for each test, and gives the `finished` event."""
    verdicts = [event["test"] for event in events if event["event"] == "verdict"]
    assert len(verdicts) == len(set(verdicts)), "a test has two verdicts"
    assert set(verdicts) == set(names)
    assert events[-1]["event"] == "finished"
    assert sum(events[-1]["counts"].values()) == len(names) == events[-1]["tests"]
    return events[-1]
