"""A lab of three nodes on this host, started from Python; runs a suite on it, then stops it.

    python examples/lab_on_one_host.py [SUITE]

`mesh up -n 3` does the same from the command line. The first node founds the mesh; the others get its ticket.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 45


def start_node(home: Path, *flags: str) -> subprocess.Popen[bytes]:
    """One `node.py`. Its log goes to HOME.log."""
    command = [sys.executable, str(ROOT / "node.py"), "--role", "auto", "--home", str(home), "--slots", "1"]
    command += ["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", *flags]
    with home.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def mesh(home: Path, *words: str) -> str:
    """What a command of `mesh` prints, asked of the node with this home."""
    command = [sys.executable, "-m", "mesh", "--home", str(home), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def wait_for(home: Path, nodes: int) -> None:
    """Until the node sees a coordinator, and that many nodes alive."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if (home / "api.json").exists():
            status = json.loads(mesh(home, "status", "--json"))
            if status["coordinator"] and sum(node["state"] == "alive" for node in status["nodes"]) >= nodes:
                return
        time.sleep(0.2)
    raise SystemExit(f"no mesh of {nodes} nodes within {START_SECONDS_MAX} s:\n{home.with_suffix('.log').read_text()}")


def stop(node: subprocess.Popen[bytes]) -> None:
    """SIGTERM lets a node finish what it runs and leave the mesh."""
    node.terminate()
    try:
        node.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def main() -> int:
    suite = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "examples" / "suite_with_requirements")
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, contextlib.ExitStack() as stack:
        homes = [Path(folder) / name for name in ("one", "two", "three")]

        def start(home: Path, *flags: str) -> None:
            node = start_node(home, *flags)
            stack.callback(stop, node)

        start(homes[0])
        wait_for(homes[0], 1)
        ticket = Path(folder) / "ticket"  # a file: a command line is for all to see
        ticket.touch(mode=0o600)
        ticket.write_text(mesh(homes[0], "ticket"))
        start(homes[1], "--join", f"@{ticket}")
        start(homes[2], "--join", f"@{ticket}", "--label", "camera=front")
        wait_for(homes[1], 3)
        wait_for(homes[2], 3)
        print(mesh(homes[0], "nodes"))
        return subprocess.run(
            [sys.executable, "-m", "mesh", "--home", str(homes[1]), "run", suite], check=False, cwd=ROOT
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
