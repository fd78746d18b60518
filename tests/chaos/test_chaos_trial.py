"""A slice of `make chaos`: one trial with a fixed seed, real nodes in hosts of their own, and the switch that they are
plugged into."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.chaos.__main__ import plans
from tests.chaos.faults import KINDS
from tests.chaos.lan import SwitchedHosts, enter, lacks_switch
from tests.chaos.trial import run_trial
from tests.processes.namespaces import hosts_of, ip

pytestmark = [pytest.mark.processes, pytest.mark.namespaces, pytest.mark.timeout(300)]

SLICE = ("kill-tests", "cut-coordinator")
ARRIVAL_SECONDS = 1.0
"""A datagram needs a millisecond; only those that are swallowed are waited for in full."""

NOTICE_SECONDS_MAX = 30.0


@pytest.fixture(autouse=True)
def _possible() -> None:
    missing = lacks_switch()
    if missing:
        pytest.skip(missing)


def test_a_slice_of_chaos(tmp_path: Path) -> None:
    outcome = run_trial(1, tmp_path / "trial", SLICE, nodes=3, suite="short")
    assert outcome.findings.wrong == [], "\n".join(outcome.story)
    assert outcome.findings.verdicts >= 120
    assert [kind for kind, _ in outcome.gaps] == list(SLICE)
    assert all(gap > 0 for _, gap in outcome.gaps)
    assert "all nodes agree" in (tmp_path / "trial" / "story.txt").read_text()
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]


def test_the_switch_loses_one_direction_alone(tmp_path: Path) -> None:
    with hosts_of(SwitchedHosts, "a", "b") as lan, ExitStack() as stack:
        a, b = (stack.enter_context(_plugged(lan, name)) for name in ("a", "b"))
        assert (_arrives(a, b), _arrives(b, a)) == (True, True)
        lan.way("a", "b", seed=1, loss=1.0)
        assert (_arrives(a, b), _arrives(b, a)) == (False, True)
        lan.way("a", "b", seed=1, delay=0.05, jitter=0.05)
        assert (_arrives(a, b), _arrives(b, a)) == (True, True)
        lan.cut("b")
        assert not _arrives(a, b)
        assert _notices_no_carrier(lan, "b")
        lan.join("b")
        assert _arrives(a, b)
        namespaces = [lan.namespace("a"), lan.namespace("b")]
    assert not set(namespaces) & set(ip("netns", "list").stdout.split())


@contextmanager
def _plugged(lan: SwitchedHosts, name: str) -> Iterator[socket.socket]:
    """A socket on that host, which knows the other's hardware address: to ask for it would need both directions."""
    other = {"a": "b", "b": "a"}[name]
    own, peer = (1, 2) if name == "a" else (2, 1)
    link = ip("-n", lan.namespace(other), "-o", "link", "show", f"{lan.tag}t{peer}").stdout
    hardware = link.split("link/ether ")[1].split()[0]
    neighbour = ["neigh", "replace", f"10.77.0.{peer}", "lladdr", hardware, "dev", f"{lan.tag}t{own}"]
    ip("-n", lan.namespace(name), *neighbour)
    made: list[socket.socket] = []

    def make() -> None:
        enter(lan.namespace(name))
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with made[0] as plugged:
        plugged.bind((f"10.77.0.{own}", 7000))
        plugged.settimeout(ARRIVAL_SECONDS)
        yield plugged


def _arrives(source: socket.socket, to: socket.socket) -> bool:
    """Whether a datagram does."""
    source.sendto(b"x", to.getsockname())
    try:
        return to.recv(10) == b"x"
    except TimeoutError:
        return False


def _notices_no_carrier(lan: SwitchedHosts, name: str) -> bool:
    """Whether that host's kernel comes to say so: it looks at its links once a second."""
    deadline = time.monotonic() + NOTICE_SECONDS_MAX
    while "NO-CARRIER" not in ip("-n", lan.namespace(name), "link", "show", "type", "tun").stdout:
        if time.monotonic() > deadline:
            return False
    return True


def test_every_kind_of_fault_has_its_turn() -> None:
    seen = [kind for _, plan in itertools.islice(plans(7, 4), 10) for kind in plan]
    assert set(seen) == set(KINDS)
    assert list(itertools.islice(plans(7, 4), 10)) == list(itertools.islice(plans(7, 4), 10))
