"""The table of tests against a plain model of it, and the rows of a page."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.state.model import NO_VERDICT, Completion, Lease, Run
from mesh.state.verdicts import enter_completion, open_book
from mesh.views import tests_table
from mesh.views.tests_table import OUTCOMES, Places, Wanted, chosen, document, rows, table
from protocols.commands import TaskRange
from protocols.errors import UsageError
from protocols.ids import Cid, LeaseId, PeerId, RunId
from protocols.manifests import CollectedTest, Outcome, RunSpec

TREE = Cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
W, V = PeerId("w"), PeerId("v")


def a_run(tests: int, *steps: tuple[PeerId, list[int], list[Outcome]]) -> Run:
    run = Run(RunId(4), b"n", RunSpec(TREE, "suite", "proj", W), 10.0)
    open_book(run, tests)
    for worker, indexes, outcomes in steps:
        codes, times = bytes(one.code for one in outcomes), array("q", [1000 * (index + 1) for index in indexes])
        attempts = bytes(run.attempts[index] + 1 for index in indexes)
        enter_completion(run, Completion(TREE, worker, LeaseId(7), array("I", indexes), codes, times, attempts))
    return run


def named(tests: int) -> list[CollectedTest]:
    return [CollectedTest(f"test_a.py::test_{'Odd' if index % 2 else 'even'}[{index}]", "") for index in range(tests)]


@given(st.data(), st.integers(1, 40))
def test_a_page_is_what_a_plain_model_has(data: st.DataObject, tests: int) -> None:
    every = list(range(tests))
    done = data.draw(st.dictionaries(st.sampled_from(every), st.sampled_from(list(Outcome))))
    run = a_run(tests, (W, sorted(done), [done[index] for index in sorted(done)]))
    open_ones = [index for index in every if index not in done]
    held = data.draw(st.sets(st.sampled_from(open_ones))) if open_ones else set()
    running = data.draw(st.sets(st.sampled_from(sorted(held)))) if held else set()
    lease = Lease(LeaseId(8), run.id, W, 1, [TaskRange(index, 1) for index in sorted(held)])
    expected = [float((7 * index) % 5) for index in every]
    wanted = Wanted(
        outcome=data.draw(st.sampled_from(["", *OUTCOMES])),
        search=data.draw(st.sampled_from(["", "odd", "1", "EVEN[2", "none"])),
        sort=data.draw(st.sampled_from(tests_table.SORTS)),
        order=data.draw(st.sampled_from(tests_table.ORDERS)),
        offset=data.draw(st.integers(0, 45)),
        limit=data.draw(st.integers(1, 20)),
    )
    names = named(tests)
    known = table(run, names, [lease], running, expected)

    def fits(index: int) -> bool:
        if wanted.search.lower() not in names[index].id.lower():
            return False
        code = run.outcomes[index]
        if wanted.outcome in ("running", "leased", "pending"):
            is_it = {"running": running, "leased": held, "pending": set(open_ones) - held}[wanted.outcome]
            return index in is_it
        if not wanted.outcome:
            return True
        if code == NO_VERDICT:
            return False
        verdict = Outcome.of_code(code)
        return verdict.bad if wanted.outcome == "bad" else verdict.value == wanted.outcome

    found = [index for index in every if fits(index)]
    worse = ["error", "failed", "xpassed", "xfailed", "skipped", "passed"]
    keys = {
        "index": lambda index: index,
        "duration": lambda index: run.durations[index],
        "expected": lambda index: expected[index],
        "outcome": lambda index: worse.index(done[index].value) if index in done else 6,
    }
    sign = -1 if wanted.order == "desc" else 1
    found.sort(key=lambda index: (sign * keys[wanted.sort](index), index))
    assert chosen(known, wanted) == (len(found), found[wanted.offset : wanted.offset + wanted.limit])


def test_rows_tell_where_each_test_stands() -> None:
    run = a_run(6, (W, [0, 1], [Outcome.PASSED, Outcome.FAILED]), (PeerId(""), [2], [Outcome.SKIPPED]))
    run.attempts[3] = 1
    places = Places(run)
    lease = Lease(LeaseId(8), run.id, V, 1, [TaskRange(3, 2)])
    known = table(run, named(6), [lease], [3], None)
    made = rows(run, known, range(6), places, {W: "worker", V: "other"}, {3: (V, 2.5)})
    told = [(row["state"], row["outcome"], row["worker"], row["name"], row["attempt"]) for row in made]
    assert told == [
        ("done", "passed", W, "worker", 1),
        ("done", "failed", W, "worker", 1),
        ("done", "skipped", None, None, 0),
        ("running", None, V, "other", 2),
        ("leased", None, None, None, 0),
        ("pending", None, None, None, 0),
    ]
    assert [row["running_seconds"] for row in made] == [None, None, None, 2.5, None, None]
    assert (made[1]["duration"], made[1]["expected"], made[1]["chunk"]) == (0.002, None, TREE)
    enter_completion(run, Completion(TREE, V, LeaseId(8), array("I", [3]), bytes([0]), array("q", [5]), bytes([2])))
    later = places.of(3)
    assert later is not None
    assert later.worker == V
    counts = document(run, known, 6, made)["counts"]
    assert (counts["failed"], counts["skipped"], counts["leased"], counts["running"]) == (1, 1, 1, 1)


def test_a_page_fits_a_message() -> None:
    run = a_run(1000)
    known = table(run, [CollectedTest("x" * 5_000, "")] * 1000, [], [], None)
    assert 1 < len(rows(run, known, range(1000), Places(run), {}, {})) < 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "odd"}, {"sort": "name"}, {"order": "up"}, {"offset": -1}, {"limit": 0}, {"limit": 1001},
        {"limit": "5"}, {"search": "x" * 501}, {"search": 5}, {"outcome": None},
    ],
)  # fmt: skip
def test_what_there_is_not_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"'{next(iter(wrong))}' must be"):
        Wanted(**wrong)  # type: ignore[arg-type]
