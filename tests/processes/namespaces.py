"""Hosts of our own: network namespaces on a bridge, each with one address, whose links can be taken down."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_numbers = itertools.count(1)


def needs_namespaces() -> None:
    """Skip, saying why, where they can't be made."""
    if shutil.which("ip") is None:
        pytest.skip("the ip command (iproute2) is missing")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if ip("netns", "add", f"mesh-probe-{os.getpid()}", check=False).returncode != 0:
        pytest.skip("this kernel or container allows no network namespaces")
    ip("netns", "del", f"mesh-probe-{os.getpid()}")


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check)


class Hosts:
    """Namespaces by name."""

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge
        self.links: dict[str, str] = {}

    def add(self, name: str, number: int) -> None:
        namespace, inner, outer = self.namespace(name), f"{self.bridge}i{number}", f"{self.bridge}o{number}"
        ip("netns", "add", namespace)
        self.links[name] = outer
        ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        ip("link", "set", inner, "netns", namespace)
        ip("link", "set", outer, "master", self.bridge, "up")
        ip("-n", namespace, "addr", "add", f"10.77.0.{number}/24", "dev", inner)
        ip("-n", namespace, "link", "set", inner, "up")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "route", "add", "default", "dev", inner)

    def namespace(self, name: str) -> str:
        return f"{self.bridge}-{name}"

    def within(self, name: str) -> list[str]:
        """What runs a command on that host."""
        return ["ip", "netns", "exec", self.namespace(name)]

    def cut(self, name: str) -> None:
        ip("link", "set", self.links[name], "down")

    def join(self, name: str) -> None:
        ip("link", "set", self.links[name], "up")


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Hosts that reach each other, and nothing else; gone afterwards."""
    needs_namespaces()
    made = Hosts(f"mt{os.getpid() % 100000}x{next(_numbers)}"[:11])
    try:
        ip("link", "add", made.bridge, "type", "bridge")
        ip("link", "set", made.bridge, "up")
        for number, name in enumerate(names, start=1):
            made.add(name, number)
        yield made
    finally:
        for name in made.links:
            ip("netns", "del", made.namespace(name), check=False)
        ip("link", "del", made.bridge, check=False)
