"""`mesh doctor`: what of this host a node needs or misses, in words. Exit code 1 if something must be mended.

Every check is one function that gives a `Finding`; one that fails unexpectedly is itself a finding, never a traceback.
"""

import argparse
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mesh.cli.client import read_endpoint
from mesh.cli.output import painted, print_document
from mesh.cli.session import home_of
from protocols.errors import HomeInUse, MeshError, UsageError

HELP = "Check this host and say in words what is wrong."

PYTHON_LEAST = (3, 11)
LIBP2P = "0.8.1"
DISK_FREE_BYTES_LEAST = 2 * 2**30
DESCRIPTORS_LEAST = 1024
CLOCK_EPOCH_LEAST = 1_767_225_600.0
"""The start of 2026: a clock before it was never set."""

MDNS_GROUP, MDNS_PORT = "224.0.0.251", 5353


@dataclass(frozen=True, slots=True)
class Finding:
    """`state`: "ok", "note" (works, but you may want to know), or "wrong"."""

    check: str
    state: str
    text: str


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    home = home_of(args)
    findings = [_guarded(name, check, home) for name, check in CHECKS.items()]
    if args.json:
        print_document({"home": str(home), "checks": [asdict(finding) for finding in findings]})
    else:
        styles = {"ok": "green", "note": "yellow", "wrong": "red"}
        for finding in findings:
            print(f"{painted(f'{finding.state:<5}', styles[finding.state])}  {finding.check:<12} {finding.text}")
    return 1 if any(finding.state == "wrong" for finding in findings) else 0


def _guarded(name: str, check: Callable[[Path], tuple[str, str]], home: Path) -> Finding:
    try:
        return Finding(name, *check(home))
    except (MeshError, OSError) as error:
        return Finding(name, "wrong", str(error))


def _python(home: Path) -> tuple[str, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    least = ".".join(map(str, PYTHON_LEAST))
    if sys.version_info < PYTHON_LEAST:
        return "wrong", f"Python {version} is too old: {least} or newer is needed"
    return "ok", f"{version} at {sys.executable}"


def _libp2p(home: Path) -> tuple[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("libp2p")
    except PackageNotFoundError:
        return "wrong", f"the package libp2p is not installed here: install version {LIBP2P}"
    if found != LIBP2P:
        return "wrong", f"libp2p {found} is installed; this program works with {LIBP2P} and no other"
    return "ok", found


def _home(home: Path) -> tuple[str, str]:
    place = home
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return "wrong", f"{home} can't be a directory: {place} is a file"
    if not os.access(place, os.W_OK | os.X_OK):
        return "wrong", f"{home} can't be written: this user may not write to {place}"
    if place != home:
        return "ok", f"{home} (will be made)"
    open_to_others = home.stat().st_mode & 0o077 and (home / "api.json").exists()
    return ("note", f"{home} can be read by other users; chmod 700 it") if open_to_others else ("ok", str(home))


def _disk(home: Path) -> tuple[str, str]:
    from mesh.views import human

    place = home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{human.size(free)} free at {place}"
    if free < DISK_FREE_BYTES_LEAST:
        return "wrong", f"{text}: at least {human.size(DISK_FREE_BYTES_LEAST)} is needed for bundles and reports"
    return "ok", text


def _clock(home: Path) -> tuple[str, str]:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < CLOCK_EPOCH_LEAST:
        return "wrong", f"the clock says {shown}: set it, reports are stamped with it"
    return "ok", shown


def _network(home: Path) -> tuple[str, str]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(("", 0))
            listener.listen(1)
        except OSError as error:
            return "wrong", f"no TCP port can be listened on: {error.strerror}"
        return "ok", f"TCP ports can be listened on (tried {listener.getsockname()[1]})"


def _mdns(home: Path) -> tuple[str, str]:
    """Joins the group as discovery does; an answer of others can't be had for sure."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            membership = socket.inet_aton(MDNS_GROUP) + socket.inet_aton("0.0.0.0")
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            sender.sendto(b"\0" * 12, (MDNS_GROUP, MDNS_PORT))
        except OSError as error:
            return "note", f"no multicast here ({error.strerror}): nodes find each other by --join, not by mDNS"
    return "ok", "multicast can be sent; nodes of the local network can find each other"


def _git(home: Path) -> tuple[str, str]:
    found = shutil.which("git")
    if found is None:
        return "note", "git is not found: bundles then hold all files but caches, ignored ones too"
    return "ok", found


def _uv(home: Path) -> tuple[str, str]:
    from mesh.hardware.uv import find_uv

    found = find_uv()
    if found is None:
        return "note", "uv is not found: a node here takes no runs of --env uv"
    return "ok", found


def _gpu(home: Path) -> tuple[str, str]:
    from mesh.hardware import gpu

    gpus = gpu.probe(home).get("gpu") or []
    if not gpus:
        return "ok", "none found (an NVIDIA GPU needs its driver's NVML library)"
    return "ok", ", ".join(str(found.get("name", "GPU")) for found in gpus)


def _descriptors(home: Path) -> tuple[str, str]:
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS_LEAST:
        return "note", f"{soft} open files are allowed: `ulimit -n {DESCRIPTORS_LEAST}` for a mesh of many nodes"
    return "ok", "no limit" if soft == resource.RLIM_INFINITY else f"{soft} open files are allowed"


def _log(home: Path) -> tuple[str, str]:
    """Reads all of it, as a start of the node would; while the node runs, that is the node's business."""
    from mesh.disk.log import LOG_FILE
    from mesh.disk.rescue import stopped_log
    from mesh.net.identity import IDENTITY_FILE, open_identity

    if not (home / LOG_FILE).exists():
        return "ok", "none in this home"
    if not (home / IDENTITY_FILE).exists():
        return (
            "wrong",
            f"{home / LOG_FILE} is here without the {IDENTITY_FILE} of its node: restore that, or remove both",
        )
    try:
        with open_identity(home) as identity, stopped_log(home, identity.peer_id) as log:
            voters = len(log.configuration.voters)
            what = f"mesh {log.state.mesh} up to index {log.index} of term {log.term}, format {log.state.format}"
            return "ok", f"{what}, {voters} voter{'s' * (voters != 1)}; read whole"
    except HomeInUse:
        return "ok", "in use by the node that runs"
    except UsageError as nothing:
        return "ok", str(nothing)


def _node(home: Path) -> tuple[str, str]:
    endpoint = read_endpoint(home)
    if endpoint is None:
        return "note", "none runs in this home; `python node.py` or `mesh up` starts one"
    return "ok", f"runs as process {endpoint.pid}, {endpoint.url}"


CHECKS: dict[str, Callable[[Path], tuple[str, str]]] = {
    "python": _python,
    "libp2p": _libp2p,
    "home": _home,
    "disk": _disk,
    "log": _log,
    "clock": _clock,
    "network": _network,
    "mdns": _mdns,
    "git": _git,
    "uv": _uv,
    "gpu": _gpu,
    "open files": _descriptors,
    "node": _node,
}
