"""What `mesh replay` asks for, and what it says of two environments."""

import dataclasses

import pytest

from mesh.cli.replay import Recorded, differences, replay_spec
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import EnvironmentInfo, Origin, RunSpec

THEN = EnvironmentInfo("ambient", "d1", "cpython", "3.11.7", "linux-x86_64", Cid("l"))
SPEC = RunSpec(
    Cid("b"), "radio", "radio", PeerId("12D3"), ("-k", "band"), timeout=5.0, maxfail=1, variables=(("A", "1"),),
    selection=Cid("s"), deadline=60.0, after=(RunId(3),), retries=2,
)  # fmt: skip
ORIGIN = Origin(RunId(9), SPEC, Cid("m"), THEN, (("PYTHONHASHSEED", "77"),))


def test_the_spec_of_a_replay() -> None:
    """What was asked for and the seeds; no dates that are past, no runs that have been waited for."""
    whole = replay_spec(Recorded(ORIGIN, {"t": "passed"}, whole=True))
    assert (whole["bundle"], whole["arguments"], whole["timeout"], whole["retries"]) == ("b", ["-k", "band"], 5.0, 2)
    assert whole["variables"] == {"A": "1", "PYTHONHASHSEED": "77"}
    assert (whole["after"], whole["deadline"], whole["selection"], whole["maxfail"]) == ([], 0.0, "s", 1)
    assert whole["prefers"] == "python == 3.11.7"
    one = replay_spec(Recorded(ORIGIN, {"t": "passed"}, whole=False))
    assert (one["selection"], one["maxfail"]) == (None, 0), "its own selection follows"


@pytest.mark.parametrize("asked", [{"prefers": "gpu"}, {"python": "3.12"}])
def test_a_run_that_chose_is_not_chosen_for(asked: dict[str, str]) -> None:
    origin = dataclasses.replace(ORIGIN, spec=dataclasses.replace(SPEC, **asked))
    assert "3.11.7" not in replay_spec(Recorded(origin, {}, whole=True)).get("prefers", "")


def test_environments_are_compared_name_by_name() -> None:
    now = dataclasses.replace(THEN, python="3.12.1", digest="d2")
    before, after = ["numpy 1.26.4", "old 1", "same 2"], ["new 3", "numpy 2.0.0", "same 2"]
    assert differences(THEN, now, before, after) == [
        "python 3.11.7 -> 3.12.1",
        "new (not installed) -> 3",
        "numpy 1.26.4 -> 2.0.0",
        "old 1 -> (not installed)",
    ]
    assert differences(THEN, THEN, before, before) == []
    assert differences(THEN, dataclasses.replace(THEN, digest="d2"), [], []) == ["what it is made from: d1 -> d2"]
