"""Fixtures of a whole session that tests may ask for; functions of a module: pytest deprecates those of instances."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class MeshHost:
    """One of the hosts that a test has at once."""

    name: str
    peer: str
    """Its node's peer ID."""
    addresses: tuple[str, ...]
    """IP addresses under which others reach it."""
    gpus: tuple[str, ...]
    """Of its devices those that the test has there, as for CUDA_VISIBLE_DEVICES."""


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """The slot's name, as with xdist: "gw0" and so on, each once in the whole mesh."""
    return str(request.config.workerinput["workerid"])  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def testrun_uid(request: pytest.FixtureRequest) -> str:
    """The same for all tests of a run, on all hosts."""
    return str(request.config.workerinput["testrunuid"])  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def mesh_node(request: pytest.FixtureRequest) -> str:
    """Peer ID of the node that runs the test."""
    return str(request.config.workerinput["meshnode"])  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def mesh_hosts() -> tuple[MeshHost, ...]:
    """The hosts of a test that needs several at once, its own first; nothing else runs in what it has of them."""
    text = os.environ.get("MESH_HOSTS")
    if text is None:
        pytest.fail("mesh_hosts is for tests that need several hosts: mark them resources(hosts=2)", pytrace=False)
    return tuple(
        MeshHost(host["name"], host["peer"], tuple(host["addresses"]), tuple(host["gpus"])) for host in json.loads(text)
    )
