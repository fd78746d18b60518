from pathlib import Path

import pytest

from mesh.worker.arguments import for_slots
from mesh.worker.processes import configured
from protocols.errors import UsageError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (("tests", "-k", "a or b"), ("tests", "-k", "a or b")),
        (("-n", "4", "x"), ("x",)),
        (("-n4", "-nauto", "--dist=loadfile", "--dist", "load", "x"), ("x",)),
        (("-xvs", "-x", "--maxfail=2", "--maxfail", "3"), ("-vs",)),
        (("--junitxml", "a.xml", "--junit-xml=b.xml"), ()),
        (("--capture=tee-sys",), ("--capture=sys",)),
        (("-m", "not slow", "--pyargs", "networkx"), ("-m", "not slow", "--pyargs", "networkx")),
        (
            ("--cov", "--cov=a", "--cov-report", "xml", "--cov-report=term", "--cov-fail-under=90", "--cov-append"),
            ("--cov", "--cov=a"),
        ),
        (("--timeout=5", "-p", "no:randomly"), ("--timeout=5", "-p", "no:randomly")),
    ],
)
def test_what_reaches_a_slot(given: tuple[str, ...], kept: tuple[str, ...]) -> None:
    assert for_slots(given) == kept


@pytest.mark.parametrize("argument", ["--pdb", "--trace", "--collect-only", "--help", "-vh", "--rootdir=/", "-f"])
def test_what_is_refused_by_name(argument: str) -> None:
    with pytest.raises(UsageError, match=r"pytest argument -.+ can't be used in a mesh: .+"):
        for_slots((argument,))


def test_a_long_expression_is_no_path(tmp_path: Path) -> None:
    expression = " or ".join(f"test_{number}" for number in range(100))
    assert not configured(tmp_path, ["-k", expression])
