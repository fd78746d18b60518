"""One mesh of real nodes, and one browser, for all tests of a module: they end with it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.dashboard.page import MISSING, Page, browser
from tests.processes.lab import Lab, lab

SUITE = """
import sys
import time

import pytest


@pytest.mark.parametrize("band", range(12))
def test_band(band):
    time.sleep(0.05)


def test_gain(mesh_artifacts):
    (mesh_artifacts / "gain.txt").write_text("12 dB")
    print("<img src=x onerror=alert(1)> was measured")
    print("the amplifier is warm", file=sys.stderr)
    assert {"gain": 12} == {"gain": 14}, "<b>below</b> the datasheet"


def test_camera():
    raise RuntimeError("camera-1 does not answer")


@pytest.mark.skip(reason="no chamber here")
def test_chamber(): ...
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three voters: "b" serves the pages."""
    if MISSING:
        pytest.skip(MISSING)
    with lab(tmp_path_factory.mktemp("dashboard")) as made:
        made.form("a", "b", "c")
        yield made


@pytest.fixture(scope="module")
def failed(mesh: Lab) -> str:
    """A run that has ended, with a test that failed."""
    run = mesh.detached(mesh.suite("radio", SUITE), "a")
    mesh.until(lambda: state_of(mesh, run) == "failed", "the run has failed")
    return run


@pytest.fixture(scope="module")
def tab(mesh: Lab) -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """Where every test begins; it may leave nothing in the browser's console."""
    tab.look()
    tab.complaints()
    yield tab
    tab.driver.get("about:blank")
    assert tab.complaints() == []


def api_of(mesh: Lab, node: str = "b") -> dict[str, str]:
    found: dict[str, str] = json.loads((mesh.home(node) / "api.json").read_text())
    return found


def state_of(mesh: Lab, run: str) -> str:
    status: dict[str, Any] = mesh.status("a") or {"runs": []}
    return next((one["state"] for one in status["runs"] if one["run"] == run), "")
