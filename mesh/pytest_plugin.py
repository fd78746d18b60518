"""`pytest --mesh`: pytest's plugin (entry point `pytest11`), as light as can be, since every pytest here loads it.

Without --mesh it adds a few options to the help and does nothing. With it, the suite is not collected in this process:
`mesh.pytest_session` submits it to the mesh and has pytest believe that its tests ran here.
"""

import os
import sys

import pytest

OPTIONS = (
    ("home", str, "", "DIR", "state directory of the node to ask; without a running one, one is started meanwhile"),
    ("slots", str, "", "N", "tests at once, when no node runs here; default: physical cores (or -n of pytest-xdist)"),
    ("requires", str, "", "EXPR", "what a worker must have, such as 'gpu.memory >= 8GiB'"),
    ("prefers", str, "", "EXPR", "the same, where there is a choice"),
    ("priority", int, 50, "N", "0 to 100, default 50"),
    ("retries", int, 0, "N", "more tries for a failed test"),
    ("worker-count", int, 0, "N", "at most N workers"),
    ("env", str, "ambient", "ENV", "where the suite's packages come from: ambient, or uv"),
    ("python", str, "", "3.12|PATH", "the suite's Python"),
    ("test-type", str, "", "TYPE", "such as model, hardware, api"),
    ("cached-allow", str, "", "WHAT", "reuse verdicts of tests that used these, too: network, files, processes"),
)

LOOKS = (
    *("help", "version", "markers", "collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow"),
    *("setupplan", "setuponly"),
)
"""Options with which pytest runs no test: they are answered here."""


def pytest_addoption(parser: pytest.Parser) -> None:
    if "_mesh_pytest_side" in sys.modules:
        return  # a slot's pytest: it has these options already, and ignores them
    group = parser.getgroup("mesh", "distributed runs")
    group.addoption("--mesh", action="store_true", default=False, help="run the tests on the mesh")
    group.addoption("--mesh-hedge", action="store_true", default=None, help="let a second worker run a straggler, too")
    group.addoption("--mesh-cached", action="store_true", default=None, help="reuse verdicts while nothing changed")
    for name, kind, _, metavar, text in OPTIONS:
        group.addoption(f"--mesh-{name}", type=kind, default=None, metavar=metavar, help=text)
    text = "write a report, as with `mesh run --report`; may be repeated"
    group.addoption("--mesh-report", action="append", default=[], metavar="KIND[:PATH]", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("mesh", False) or "_mesh_pytest_side" in sys.modules or "MESH_RUN" in os.environ:
        return
    if any(config.getoption(name, False) for name in LOOKS):
        return
    from mesh.pytest_session import activate

    activate(config)
