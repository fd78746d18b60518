"""What an environment asks of a worker, as a requirement; and no early judgement of who has not looked yet."""

import pytest

from mesh.scheduler.environments import checked_python, with_needs
from mesh.scheduler.feasibility import Need
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.hopeless import PROBING, hopeless
from mesh.scheduler.requirements import parse, unmet
from mesh.scheduler.waiting import Waiting
from protocols.errors import UsageError
from protocols.ids import PeerId, RunId

A = PeerId("a")


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("3.12", "3.12"),
        ("3.12.1", "3.12.1"),
        ("python3.9", "3.9"),
        ("cpython-3.13", "3.13"),
        ("py3.11", "3.11"),
        ("/opt/venv/bin/python", "/opt/venv/bin/python"),
    ],
)
def test_a_python_is_a_version_or_a_path(text: str, python: str) -> None:
    assert checked_python(text) == python


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("twelve", "'twelve' is neither"),
        ("3", "neither"),
        ("pypy3.10", "neither"),
        ("2.7", "neither"),
        ("bin/python", "neither"),
        ("3.8", "Python 3.8 is too old: suites run under 3.9 or newer"),
    ],
)
def test_what_is_no_python(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        checked_python(text)


@pytest.mark.parametrize(
    ("requires", "environment", "python", "wanted"),
    [
        ("", "ambient", "", ""),
        ("gpu or ssd", "ambient", "/opt/python", "gpu or ssd"),
        ("", "uv", "", "uv"),
        ("gpu or ssd", "uv", "", "uv and (gpu or ssd)"),
        ("", "ambient", "3.12", "(python == 3.12 or 3.12 in pythons)"),
        ("gpu", "uv", "3.12", "(python == 3.12 or 3.12 in pythons) and uv and (gpu)"),
    ],
)
def test_needs(requires: str, environment: str, python: str, wanted: str) -> None:
    made = with_needs(requires, environment, python)
    assert made == wanted
    assert with_needs(made, environment, python) == made
    parse(made)


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        ({"python": "3.12.4", "pythons": (), "uv": "0.9.2"}, ""),
        ({"python": "3.11.7", "pythons": ("3.9.18", "3.12.1"), "uv": "0.9.2"}, ""),
        ({"python": "3.11.7", "pythons": ("3.1.2",), "uv": "0.9.2"},
         "has python 3.11.7, not == 3.12 and has no 3.12 in pythons"),
        ({"python": "3.12.4", "pythons": ()}, "has no uv"),
    ],
)  # fmt: skip
def test_who_has_it_and_why_others_have_not(capabilities: dict[str, str | tuple[str, ...]], reason: str) -> None:
    assert unmet(parse(with_needs("", "uv", "3.12")), capabilities) == reason


def test_a_worker_that_has_not_looked_yet_may_have_it() -> None:
    waiting = Waiting(RunId(1), "uv", 0, 0.0, (), Need(("uv",)))
    looking = WorkerView(A, 1, alive=True, capabilities={"python": "3.11.7", PROBING: True})
    assert hopeless(waiting, {A: looking}) is None
    found = hopeless(waiting, {A: WorkerView(A, 1, alive=True, capabilities={"python": "3.11.7"})})
    assert found is not None
    assert found[0] == 10
