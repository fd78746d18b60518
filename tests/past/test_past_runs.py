"""What is kept of finished runs: packed, on disk, in documents."""

import json
import sqlite3
from array import array
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.disk.history import HISTORY_FILE, HistoryFile, open_history
from mesh.manifests import Manifests
from mesh.past import PastDesk, PastKeeper
from mesh.past_looker import PastLooker
from mesh.state.model import NO_VERDICT
from mesh.state.past import (
    DURATION_MAX,
    NOBODY,
    Results,
    pack_names,
    pack_results,
    place_of,
    unpack_names,
    unpack_results,
)
from mesh.views import trends
from protocols.errors import NoQuorum, RemoteProtocolError, StorageError, UsageError
from protocols.history import PastRun
from protocols.manifests import Outcome
from tests.coordinator.test_coordinator_history import Lab
from tests.past.past_runs import HOSTS, past

PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED

rows = st.lists(
    st.tuples(
        st.sampled_from([*range(6), NO_VERDICT]),
        st.integers(0, DURATION_MAX),
        st.integers(0, 255),
        st.integers(0, 254),
    )
)


@given(rows)
@settings(max_examples=30)
def test_results_come_back_as_they_were(rows: list[tuple[int, int, int, int]]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    results = Results(bytes(columns[0]), array("q", columns[1]), bytes(columns[2]), bytes(columns[3]))
    packed = pack_results(results)
    found = unpack_results(packed, len(rows))
    assert (found.outcomes, found.workers, found.attempts) == (results.outcomes, results.workers, results.attempts)
    assert list(found.durations) == list(results.durations)
    for damaged in (packed[:-1], b"junk", packed[:1]):
        with pytest.raises(RemoteProtocolError):
            unpack_results(damaged, len(rows))
    with pytest.raises(RemoteProtocolError):
        unpack_results(packed, len(rows) + 1)


@given(st.lists(st.text(min_size=1, max_size=20), unique=True))
@settings(max_examples=30)
def test_names_come_back_and_are_found(tests: list[str]) -> None:
    clean = [test.replace("\0", "\ufffd") for test in tests]
    digest, packed = pack_names(tests)
    assert unpack_names(packed) == clean
    assert digest == pack_names(tests)[0]
    for index, test in enumerate(clean):
        assert place_of(test, packed) == clean.index(test) <= index
    assert place_of("not among them, being longer than any", packed) is None


async def test_history_is_kept_bounded_and_told(tmp_path: Path) -> None:
    tests = ["a.py::x", "a.py::y"]
    with HistoryFile(tmp_path / "h.sqlite", runs_max=4, seconds_max=10_000.0) as file:
        for number in range(1, 7):
            run, results = past(number, [PASSED, FAILED if number % 2 else PASSED], [0.1 * number, 1.0])
            await file.add(run, tests, results)
        other, _ = past(7, [], [], project="other")
        await file.add(other)
        assert [run.run for run in await file.runs("suite", 10)] == [6, 5, 4], "the oldest go"
        assert [(name, count) for name, count, _ in await file.projects()] == [("other", 1), ("suite", 3)]
        seen = await file.test("suite", "a.py::y", 2)
        assert [(one.run.run, one.outcome, one.duration) for one in seen] == [
            (6, PASSED.code, 1_000_000),
            (5, FAILED.code, 1_000_000),
        ]
        assert await file.test("suite", "a.py::z", 5) == []
        wholes, names = await file.wholes("suite", 10, 3)
        assert [whole.run.run for whole in wholes] == [6], "no more tests than asked for"
        assert names == {wholes[0].digest: tests}
    with HistoryFile(tmp_path / "h.sqlite", seconds_max=1_500.0) as file:
        assert file.has("bafyreport6", whole=True)
        assert file.has("bafyreport7")
        assert not file.has("bafyreport7", whole=True)
        run, results = past(8, [PASSED] * 2, [0.1, 1.0])
        await file.add(run, tests, results)
        assert [run.run for run in await file.runs("suite", 10)] == [8], "what is too old goes"


async def test_when_the_bytes_are_over_the_oldest_results_go_and_the_numbers_stay(tmp_path: Path) -> None:
    with HistoryFile(tmp_path / "h.sqlite", bytes_max=1) as file:
        for number in (1, 2):
            run, results = past(number, [PASSED], [0.1])
            await file.add(run, ["x"], results)
        assert [run.run for run in await file.runs("suite", 10)] == [2, 1]
        assert not file.has("bafyreport1", whole=True)
        assert file.has("bafyreport2", whole=True), "the newest stay whatever their size"


@pytest.mark.parametrize(
    "argument",
    ["", "junk", "[]", '{"limit": "x"}', '{"limit": null}', '{"limit": 1e999}', r'{"host": "\ud800"}', "[" * 100_000],
)
async def test_a_malformed_question_is_refused_in_words(tmp_path: Path, argument: str) -> None:
    """Any node of the mesh may ask."""
    with HistoryFile(tmp_path / "h.sqlite") as file:
        for view in ("trends", "seen", "host"):
            with pytest.raises(UsageError, match=f"the history's {view} can't be asked for by "):
                await PastDesk(file).look(view, argument)


async def test_what_a_host_ran_lately(tmp_path: Path) -> None:
    outcomes, seconds = [PASSED, FAILED, SKIPPED, PASSED], [0.5, 1.0, 0.0, 2.0]
    with HistoryFile(tmp_path / "h.sqlite") as file:
        for number in range(1, 4):
            run, results = past(number, outcomes, seconds, (0, 1, 1, 0), project=f"p{number}", tries=((0, 1), (3, 0)))
            await file.add(run, ["a", "b", "c", "d"], results)
        await file.add(past(4, outcomes, seconds)[0])
        await file.add(*_idle(5))
        desk = PastDesk(file)
        document = await desk.look("host", json.dumps({"host": HOSTS[1], "limit": 3}))
        assert [(one["run"], one["project"], one["at"]) for one in document["runs"]] == [
            *(("4", "suite", 4_000.0), ("3", "p3", 3_000.0), ("2", "p2", 2_000.0)),
        ], "of all projects, without what it had no part in"
        numbers = [tuple(one[name] for name in ("tests", "bad", "retried", "seconds")) for one in document["runs"]]
        assert numbers == [(None, None, 0, None), (2, 1, 1, 1.0), (2, 1, 1, 1.0)], "what is not known is null"
        assert len(await file.parts(HOSTS[1], 10, 5)) == 2, "no more tests than asked for"
        assert (await desk.look("host", json.dumps({"host": "12D3KooWnobody", "limit": 3})))["runs"] == []
        await file.add(*_idle(6))
        again = await desk.look("host", json.dumps({"host": HOSTS[0], "limit": 1}))
        assert again["runs"][0]["run"] == "6"


def _idle(number: int) -> tuple[PastRun, list[str], Results]:
    """A run of which the first host did all."""
    run, results = past(number, [PASSED], [0.1])
    return run, ["a"], results


async def test_a_damaged_history_costs_history_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / HISTORY_FILE
    with HistoryFile(path) as file:
        run, results = past(1, [PASSED], [0.1])
        await file.add(run, ["x"], results)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE results SET body = x'00'")
    connection.close()
    with HistoryFile(path) as file:
        assert [run.run for run in await file.runs("suite", 10)] == [1]
        with pytest.raises(StorageError, match="wrong checksum; move it away: it is filled again"):
            await file.test("suite", "x", 1)
    path.write_bytes(b"not a database at all")
    opened = open_history(tmp_path)
    assert opened is not None
    with opened as file:
        assert await file.projects() == []
    assert (tmp_path / f"{HISTORY_FILE}.damaged").read_bytes() == b"not a database at all"
    assert "is damaged" in caplog.text


class Replica:
    """A log that only grows."""

    mesh = "lab"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.waited = trio.Event()

    @property
    def state(self):
        return self._lab.state

    @property
    def version(self) -> int:
        return self._lab.state.applied

    async def wait_changed(self, since: int) -> int:
        self.waited.set()
        await trio.sleep_forever()
        return since


class FixedClock:
    def now(self) -> float:
        return 150.0


async def test_a_voter_keeps_what_finishes_and_catches_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real clock, since files are written in threads."""
    monkeypatch.setattr("mesh.past.keeper.MANIFEST_SECONDS", 0.0)
    lab = Lab()
    first = await lab.run({"a::x": 3.0, "a::y": 8.0}, slow=["a::y"])
    gone = await lab.run({"a::x": 1.0}, kept=False)
    with HistoryFile(tmp_path / "h.sqlite") as file:
        for _ in range(2):  # the second time as after a restart
            replica = Replica(lab)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(PastKeeper(file, lab.content, Manifests(lab.content), FixedClock()).keep, replica)
                await replica.waited.wait()
                nursery.cancel_scope.cancel()
        assert {run.run for run in await file.runs("suite", 10)} == {gone, first}
        assert file.has(f"lab/{first}", whole=True)
        assert file.has(f"lab/{gone}")
        assert not file.has(f"lab/{gone}", whole=True), "its tests' names are nowhere"
        (seen,) = await file.test("suite", "a::y", 5)
        assert (seen.duration, seen.host) == (8_000_000, ("slow", "slow"))
        assert (seen.run.wall_seconds, seen.run.test_seconds, seen.run.slots) == (100.0, 11.0, 4)
        assert seen.run.queue_seconds is None, "it was over when this node looked first"
        document = await PastDesk(file).look("trends", json.dumps({"project": "suite", "limit": 5}))
        assert document["slowest"] == [
            {"test": "a::y", "median": 8.0, "runs": 1},
            {"test": "a::x", "median": 3.0, "runs": 1},
        ]


async def test_without_a_coordinator_a_voter_tells_what_it_has_and_says_so(tmp_path: Path) -> None:
    async def nobody(view: str, argument: str, patience: float) -> dict:
        raise NoQuorum("no coordinator answers")

    with HistoryFile(tmp_path / "h.sqlite") as file:
        run, results = past(1, [PASSED], [0.1])
        await file.add(run, ["x"], results)
        voter = PastLooker(nobody, PastDesk(file).look, lambda agreed: {"agreed": agreed, "as_of": 5.0})
        assert await voter.document("projects", {}) == {
            "projects": [{"project": "suite", "runs": 1, "last_run": "1", "last_at": 1_000.0}],
            "agreed": False,
            "as_of": 5.0,
        }
    with pytest.raises(NoQuorum):
        await PastLooker(nobody, None, lambda agreed: {"agreed": agreed, "as_of": 5.0}).document("projects", {})


def test_trends_of_a_project() -> None:
    tests = ["a::quick", "a::slow", "a::flaky", "a::slower"]
    runs, wholes = [], []
    for number in range(1, 9):
        outcomes = [PASSED, PASSED, FAILED if number in (2, 5) else PASSED, PASSED]
        seconds = [0.01, 5.0, 0.2, 0.1 if number < 6 else 0.4]
        run, results = past(number, outcomes, seconds, flaky=(0,) if number == 8 else ())
        runs.insert(0, run)
        wholes.insert(0, trends.Whole(run, b"d", results))
    document = trends.trends_document("suite", runs, wholes, {b"d": tests})
    newest, second = document["runs"][-1], document["runs"][1]
    assert (newest["run"], newest["pass_rate"], newest["wall_seconds"]) == ("8", 1.0, 100.0)
    assert (second["pass_rate"], second["counts"]["failed"], second["state"]) == (0.75, 1, "failed")
    assert newest["utilisation"] == pytest.approx(5.61 / 160, abs=1e-4)
    assert [one["test"] for one in document["slowest"]] == ["a::slow", "a::flaky", "a::slower", "a::quick"]
    assert document["flakiest"] == [{"test": "a::flaky", "rate": 0.5, "flips": 4, "runs": 8}]
    assert document["slower"] == [{"test": "a::slower", "before": 0.1, "now": 0.4, "ratio": 4.0}]


def test_a_test_over_time() -> None:
    seen = []
    for number in range(1, 7):
        bad = number in (2, 4)
        run, _ = past(number, [FAILED if bad else PASSED], [0.1 * number])
        outcome = SKIPPED if number == 6 else FAILED if bad else PASSED
        seen.insert(0, trends.Seen(run, 0, outcome.code, 100_000 * number, int(bad), 1))
    document = trends.seen_document("suite", "x", seen)
    assert [one["outcome"] for one in document["results"]] == [
        *("skipped", "passed", "failed", "passed", "failed", "passed"),
    ]
    assert document["flaky"] == {"rate": 0.8, "flips": 4}
    assert document["bad"] == 2
    assert document["duration"] == {"median": 0.3, "mad": 0.2, "p95": 0.48}
    assert document["hosts"] == [
        {"peer": HOSTS[1], "name": "lab-2", "runs": 2, "bad": 2, "median": None},
        {"peer": HOSTS[0], "name": "lab-1", "runs": 4, "bad": 0, "median": 0.3},
    ]
    unknown = trends.Seen(past(9, [PASSED], [1.0])[0], 0, PASSED.code, 5, NOBODY, 1)
    assert trends.seen_document("suite", "x", [unknown])["hosts"] == []
    assert trends.seen_document("suite", "x", [])["duration"] == {"median": None, "mad": None, "p95": None}
