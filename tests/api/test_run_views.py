"""What is asked of `RunViews`, by nodes of any version: a question that makes no sense is answered in a sentence."""

import pytest

from mesh.run_views import RunViews, argument_of
from mesh.state.model import CoordinatorState
from protocols.errors import UsageError
from protocols.ids import RunId


async def nothing(*asked: object) -> None:
    raise LookupError("a bug of ours")


def views(state: object = CoordinatorState) -> RunViews:
    return RunViews(content=None, state=state, manifest=nothing)


@pytest.mark.parametrize(
    ("view", "argument"),
    [
        ("nodes", ""),
        ("tests", "{"),
        ("tests", "[]"),
        ("tests", "7"),
        ("tests", "[" * 100_000),
        ("tests", '{"run": "x"}'),
        ("tests", '{"run": 1, "colour": "red"}'),
        ("timeline", '{"run": Infinity}'),
        ("test", '{"run": 1}'),
        ("test", '{"run": 1, "index": null}'),
    ],
)
async def test_a_question_that_makes_no_sense(view: str, argument: str) -> None:
    with pytest.raises(UsageError, match=f"there is no view '{view}' of '"):
        await views().look(view, argument)


async def test_a_run_that_is_not_there() -> None:
    for view in ("tests", "timeline"):
        with pytest.raises(UsageError, match="there is no run 7"):
            await views().look(view, argument_of(RunId(7)))
    with pytest.raises(UsageError, match="there is no run 7"):
        await views().look("test", argument_of(RunId(7), index=0))


async def test_a_fault_of_ours_is_not_taken_for_the_askers() -> None:
    def broken() -> CoordinatorState:
        raise KeyError("state")

    with pytest.raises(KeyError):
        await views(broken).look("queue", "")
    with pytest.raises(KeyError):
        await views(broken).look("tests", argument_of(RunId(7)))
