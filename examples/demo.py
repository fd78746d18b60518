"""`make demo`: a mesh of three nodes on this machine runs a part of networkx's own test suite.

    python examples/demo.py [PART ...]          such as: classes algorithms/flow

It uses the commands that a user types. The mesh has a swarm key of its own, listens on loopback and looks for nobody;
everything but demo-out/ (here) is gone at the end, however that comes.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = Path.cwd() / "demo-out"
NODES = 3
PARTS = ("classes", "generators", "algorithms/bipartite", "algorithms/centrality", "algorithms/community")
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 40
TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MESH = (sys.executable, "-m", "mesh")


def main(parts: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="mesh-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        print(f"Starting a mesh of {NODES} nodes on this machine, in {folder}", flush=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(folder / "config")}
        environment.pop("MESH_HOME", None)
        package = suite(folder)
        with local_mesh(folder / "mesh", environment) as homes:
            return tour(homes, [package / part for part in parts], environment)


def tour(homes: list[Path], tests: list[Path], environment: dict[str, str]) -> int:
    """What the demo shows; its exit code."""
    first, second, last = homes

    def mesh(*words: str, home: Path, quiet: bool = False) -> str:
        """Run a command of `mesh` at a node; what it printed, if `quiet`."""
        command = [*MESH, "--home", str(home), *words]
        with child(command, environment, stdout=subprocess.PIPE if quiet else None) as process:
            text = process.communicate()[0] or ""
            if process.returncode:
                raise SystemExit(process.returncode)
            return text

    mesh("nodes", home=first)
    print(f"\nRunning networkx's tests of {', '.join(path.name for path in tests)} from the second node", flush=True)
    mesh("run", str(tests[0]), "--", *map(str, tests[1:]), home=second)
    run = json.loads(mesh("runs", "--json", home=first, quiet=True))["runs"][-1]

    print("\nFetching the report by its CID from the third node, and drawing the pictures", flush=True)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    mesh("results", run["report"], "-o", str(OUT / "report"), home=last)
    mesh("topology", "-o", str(OUT / "topology.png"), home=last, quiet=True)
    mesh("visualize", "-o", str(OUT / "overview.png"), home=last, quiet=True)
    counts = json.loads((OUT / "report" / "report.json").read_text())["counts"]
    if counts != run["counts"]:
        raise SystemExit(f"the report's counts are {counts}, the run's {run['counts']}")
    print(f"\nreport's CID      {run['report']}")
    print(f"report            {OUT / 'report'}")
    print(f"report's page     {OUT / 'report' / 'report.html'}")
    print(f"topology picture  {OUT / 'topology.png'}")
    print(f"overview picture  {OUT / 'overview.png'}")
    return 0


def suite(folder: Path) -> Path:
    """A copy of the installed networkx, as a project of its own; the package's directory."""
    found = importlib.util.find_spec("networkx")
    if found is None or found.origin is None:
        raise SystemExit("networkx is not installed; `make demo` sets everything up")
    package = folder / "suite" / "networkx"
    shutil.copytree(Path(found.origin).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "suite" / "pytest.ini").write_text("[pytest]\n")
    return package


@contextlib.contextmanager
def local_mesh(folder: Path, environment: dict[str, str]) -> Iterator[list[Path]]:
    """`mesh up` for as long as the context is open; the nodes' homes."""
    errors = folder.with_suffix(".log")
    with errors.open("w") as log:
        command = [*MESH, "up", "-n", str(NODES), "--json", "--home", str(folder), "--timeout", str(START_SECONDS_MAX)]
        with child(command, environment, stdout=subprocess.PIPE, stderr=log) as up:
            assert up.stdout is not None
            started = time.monotonic()
            homes = []
            for line in up.stdout:
                homes.append(Path(json.loads(line)["home"]))
                if len(homes) == NODES:
                    break
            else:
                raise SystemExit(f"the mesh did not start:\n{errors.read_text()}")
            print(f"The nodes agreed on a coordinator after {time.monotonic() - started:.1f} s\n", flush=True)
            yield homes
            print("\nStopping the nodes", flush=True)


@contextlib.contextmanager
def child(command: list[str], environment: dict[str, str], **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own (Ctrl-C is for this program alone), stopped at the end if it still runs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)  # from its birth on there is somebody who stops it
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=unblock,
            **streams,
        )
    except BaseException:
        unblock()
        raise
    try:
        unblock()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)


def interrupt(number: int, frame: object) -> None:
    """The first signal ends the demo in order; later ones must not disturb the cleaning up."""
    for ignored in TAKEN:
        signal.signal(ignored, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for taken in TAKEN:
        signal.signal(taken, interrupt)
    try:
        sys.exit(main(sys.argv[1:] or list(PARTS)))
    except KeyboardInterrupt:
        print("interrupted; everything is stopped", file=sys.stderr)
        sys.exit(2)
