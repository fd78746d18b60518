"""A lab over several hosts, on one: each node has a network namespace of its own, all are plugged into one bridge.

    sudo python examples/lab_in_namespaces.py [SUITE]

Each namespace has its own loopback, addresses and ports, as a host has: the nodes find each other over the bridge only,
and `ip -n NAMESPACE link set eth0 down` is a pulled cable. Needs root, Linux and the `ip` command (iproute2).
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOSTS = 3
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 45


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(host: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", host, sys.executable, *command]


def mesh(host: str, home: Path, *words: str) -> str:
    """What a command of `mesh` prints. It talks to its node over loopback, so it runs in the node's namespace."""
    command = inside(host, "-m", "mesh", "--home", str(home), *words)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def wait_for(host: str, home: Path, nodes: int) -> None:
    """Until the node sees a coordinator, and that many nodes alive."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if (home / "api.json").exists():
            status = json.loads(mesh(host, home, "status", "--json"))
            if status["coordinator"] and sum(node["state"] == "alive" for node in status["nodes"]) >= nodes:
                return
        time.sleep(0.2)
    raise SystemExit(
        f"{host} saw no mesh of {nodes} nodes within {START_SECONDS_MAX} s; see {home.with_suffix('.log')}"
    )


def make_hosts(stack: contextlib.ExitStack) -> list[str]:
    """A bridge, and namespaces 10.77.0.1, 10.77.0.2, ... on it; all gone with `stack`."""
    tag = f"{os.getpid() % 10**7}"
    bridge = f"mbr{tag}"
    ip("link", "add", bridge, "type", "bridge")
    stack.callback(ip, "link", "del", bridge)
    ip("link", "set", bridge, "up")
    hosts = []
    for number in range(1, HOSTS + 1):
        host, cable = f"mesh-{tag}-{number}", f"m{number}v{tag}"
        ip("netns", "add", host)
        stack.callback(ip, "netns", "del", host)  # its end of the cable goes with it, and so the other end
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host)
        ip("link", "set", cable, "master", bridge, "up")
        ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
        ip("-n", host, "link", "set", "eth0", "up")
        ip("-n", host, "link", "set", "lo", "up")
        hosts.append(host)
    return hosts


def stop(node: subprocess.Popen[bytes]) -> None:
    """SIGTERM lets a node finish what it runs and leave the mesh."""
    node.terminate()
    try:
        node.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def main() -> int:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise SystemExit("network namespaces need root and the `ip` command (iproute2): run this with sudo on Linux")
    suite = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "examples" / "suite_with_requirements")
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, contextlib.ExitStack() as stack:
        hosts = make_hosts(stack)
        homes = [Path(folder) / host for host in hosts]
        ticket = Path(folder) / "ticket"
        for number, (host, home) in enumerate(zip(hosts, homes, strict=True)):
            flags = ["--join", f"@{ticket}"] if number else ["--label", "camera=front"]
            command = inside(host, str(ROOT / "node.py"), "--home", str(home), "--slots", "1", "--no-mdns", *flags)
            with home.with_suffix(".log").open("wb") as log:
                node = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            stack.callback(stop, node)
            if not number:
                wait_for(host, home, 1)
                ticket.touch(mode=0o600)
                ticket.write_text(mesh(host, home, "ticket"))
        for host, home in zip(hosts, homes, strict=True):
            wait_for(host, home, HOSTS)
        print(mesh(hosts[0], homes[0], "nodes"))
        command = inside(hosts[-1], "-m", "mesh", "--home", str(homes[-1]), "run", suite)
        return subprocess.run(command, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
