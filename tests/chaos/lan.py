"""Hosts whose cables end in our own switch (switch.py), so that each direction between two of them can lose and delay;
and the way into a host for a thread of this process."""

import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.processes.lab import ROOT
from tests.processes.namespaces import Hosts, ip, lacks_namespaces

CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/run/netns")
TUN = Path("/dev/net/tun")

_LIBC = ctypes.CDLL(None, use_errno=True)


class SwitchedHosts(Hosts):
    """Hosts on one switch of ours."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self._switch: subprocess.Popen[str] | None = None
        self._ordering = threading.Lock()

    def open(self) -> None:
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.switch"], cwd=ROOT, start_new_session=True, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def close(self) -> None:
        super().close()
        if self._switch is not None:
            self._switch.communicate()

    def plug(self, name: str, number: int) -> str:
        device = f"{self.tag}t{number}"
        self._order(plug=name, device=device)
        ip("link", "set", device, "netns", self.namespace(name))
        return device

    def cut(self, name: str) -> None:
        self._order(carrier=name, up=False)

    def join(self, name: str) -> None:
        self._order(carrier=name, up=True)

    def way(self, source: str, to: str, seed: int, loss: float = 0.0, delay: float = 0.0, jitter: float = 0.0) -> None:
        """What happens to packets from one host to another."""
        self._order(**{"from": source, "to": to, "loss": loss, "delay": delay, "jitter": jitter, "seed": seed})

    def _order(self, **order: object) -> None:
        switch = self._switch
        assert switch is not None, "the switch is open"
        assert switch.stdin is not None
        assert switch.stdout is not None
        with self._ordering:
            switch.stdin.write(json.dumps(order) + "\n")
            switch.stdin.flush()
            assert switch.stdout.readline() == "ok\n", f"the switch died of {order}"


def enter(namespace: str) -> None:
    """Move the calling thread, and no other, into a host's network."""
    descriptor = os.open(NAMESPACES / namespace, os.O_RDONLY)
    try:
        if _LIBC.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"network namespace {namespace} can't be entered")
    finally:
        os.close(descriptor)


def lacks_switch() -> str:
    """Why there can be no such hosts here; empty if there can."""
    return lacks_namespaces() or ("" if TUN.exists() else f"{TUN} is missing: no host can be plugged into our switch")
