"""Fixtures of a whole session that tests may ask for; functions of a module: pytest deprecates those of instances."""

from __future__ import annotations

import pytest


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
