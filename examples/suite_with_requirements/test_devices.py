"""What tests may ask of the worker that runs them."""

import os
import sys

import pytest


@pytest.mark.requires("cpu.cores >= 1 and memory >= 256MiB")
def test_needs_a_little_room():
    assert sum(range(1000)) == 499_500


@pytest.mark.requires("label.camera == front")
def test_takes_a_picture(mesh_node, mesh_artifacts):
    """Runs only on a node with that label; what it leaves in `mesh_artifacts` is kept with its record."""
    (mesh_artifacts / "picture.txt").write_text(f"seen by {mesh_node}\n")


@pytest.mark.prefers("gpu.memory >= 8GiB")
def test_would_rather_have_a_gpu():
    """Runs anywhere, on a node with such a GPU if one is free."""


def test_knows_its_slot(worker_id):
    assert os.environ["PYTEST_XDIST_WORKER"] == worker_id


@pytest.mark.parametrize("size", [1, 2, 4])
def test_sizes(size):
    assert size & (size - 1) == 0


@pytest.mark.skipif(sys.platform != "win32", reason="a test of Windows")
def test_of_windows():
    raise AssertionError


@pytest.mark.xfail(reason="0.1 has no exact binary form")
def test_tenths():
    assert 0.1 + 0.2 == 0.3
