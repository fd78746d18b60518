"""Hosts of our own: network namespaces on a bridge, each with one address, whose links can be taken down."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

_numbers = itertools.count(1)


def needs_namespaces() -> None:
    """Skip, saying why, where they can't be made."""
    missing = lacks_namespaces()
    if missing:
        pytest.skip(missing)


def lacks_namespaces() -> str:
    """Why they can't be made; empty if they can."""
    if shutil.which("ip") is None:
        return "the ip command (iproute2) is missing"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if ip("netns", "add", f"mesh-probe-{os.getpid()}", check=False).returncode != 0:
        return "this kernel or container allows no network namespaces"
    ip("netns", "del", f"mesh-probe-{os.getpid()}")
    return ""


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check)


class Hosts:
    """Namespaces by name, on a bridge. How a host is plugged in, cut off and joined again is a subclass's to change."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.names: list[str] = []
        self._cables: dict[str, str] = {}

    def open(self) -> None:
        ip("link", "add", self.tag, "type", "bridge")
        ip("link", "set", self.tag, "up")

    def close(self) -> None:
        for name in self.names:
            ip("netns", "del", self.namespace(name), check=False)
        ip("link", "del", self.tag, check=False)

    def add(self, name: str, number: int) -> None:
        namespace = self.namespace(name)
        ip("netns", "add", namespace)
        self.names.append(name)
        device = self.plug(name, number)
        ip("-n", namespace, "addr", "add", f"10.77.0.{number}/24", "dev", device)
        ip("-n", namespace, "link", "set", device, "up")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "route", "add", "default", "dev", device)

    def plug(self, name: str, number: int) -> str:
        """Give the host its cable; the device at its end of it."""
        inner, outer = f"{self.tag}i{number}", f"{self.tag}o{number}"
        self._cables[name] = outer
        ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        ip("link", "set", inner, "netns", self.namespace(name))
        ip("link", "set", outer, "master", self.tag, "up")
        return inner

    def namespace(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def within(self, name: str) -> list[str]:
        """What runs a command on that host."""
        return ["ip", "netns", "exec", self.namespace(name)]

    def cut(self, name: str) -> None:
        ip("link", "set", self._cables[name], "down")

    def join(self, name: str) -> None:
        ip("link", "set", self._cables[name], "up")


H = TypeVar("H", bound=Hosts)


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Hosts that reach each other, and nothing else; gone afterwards."""
    needs_namespaces()
    with hosts_of(Hosts, *names) as made:
        yield made


@contextmanager
def hosts_of(kind: type[H], *names: str) -> Iterator[H]:
    """The same, of any kind, where namespaces are known to work."""
    made = kind(f"mt{os.getpid() % 100000}x{next(_numbers)}"[:11])
    try:
        made.open()
        for number, name in enumerate(names, start=1):
            made.add(name, number)
        yield made
    finally:
        made.close()
