"""`run.py`: the original framework's flags become what `mesh run` does, or one sentence."""

import sys
from pathlib import Path

import pytest

from mesh.cli import original
from mesh.options import NodeOptions
from protocols.presence import Role
from tests.api.fake_backend import FakeBackend
from tests.cli.inside import fake_module
from tests.cli.served_node import Node


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[NodeOptions]:
    made: list[NodeOptions] = []
    monkeypatch.setitem(sys.modules, "mesh.node", fake_module(FakeBackend(), made))
    return made


def test_distributed_is_a_run_on_the_node_that_runs(node: Node, suite: Path) -> None:
    code = original.main(["--distributed", "--worker-count", "3", "--test-type", "api", "--", "-x", "-k", "good"])
    assert code == 1
    (spec,) = node.backend.submitted.values()
    assert (spec.worker_count, spec.test_type, spec.maxfail) == (3, "api", 1)
    assert spec.arguments == ("-x", "-k", "good")


def test_otherwise_on_this_host_alone(node: Node, suite: Path, served: list[NodeOptions]) -> None:
    assert original.main(["tests", "--worker-count", "3"]) == 1
    assert node.backend.submitted == {}
    (options,) = served
    assert (options.solitary, options.slots, options.role) == (True, 3, Role.AUTO)


def test_a_coordinator_is_joined_as_a_client(
    home: Path, suite: Path, served: list[NodeOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWDgxyAZZFTxE5PNGLHQHvDyzNUNw2gRGMorRQoa58Ro8q"
    monkeypatch.setattr(original, "JOIN_SECONDS_MAX", 0.0)
    assert original.main(["--distributed", "--coordinator", address]) in (1, 12)
    (options,) = served
    assert (options.solitary, options.role, options.join) == (False, Role.CLIENT, (address,))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--distributd"], "--distributd"),
        (["--worker-count", "0"], "'0' is not a whole number from 1 to 4096"),
        (["--distributed", "--coordinator", "nonsense"], "neither a ticket"),
        (["--distributed", "--coordinator", "lab:70000"], "'lab:70000' has no TCP port"),
        (["--coordinator", "lab:7000"], "--distributed run, which is not asked for"),
        (["nowhere"], "nowhere: no such file or directory"),
        (["--", "--maxfail=many"], "--maxfail 'many' is not a whole number"),
    ],
)
def test_bad_input(words: list[str], said: str, home: Path, suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert original.main(words) == 4
    error = capfd.readouterr().err
    assert error.startswith("run.py: ")
    assert said in error
    assert error.count("\n") == 1
