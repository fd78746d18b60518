"""Sessions: scopes, fixtures, leases, and what processes are made of and named."""

import dataclasses
from pathlib import Path

import pytest
import trio
from runner_harness import SECONDS_MAX, collect, gone, job, run, take, work, write

from mesh.ports import CollectionFailed, Started, WorkItem
from mesh.worker.runner import PytestRunner
from protocols.ids import LeaseId, TestIndex
from protocols.manifests import Manifest, Outcome

LOGGING = """
    import os, pytest

    def note(*words):
        with open(os.environ["NOTES"], "a") as file:
            print(os.environ["MESH_SLOT"], *words, file=file)

    @pytest.fixture(scope="session", autouse=True)
    def whole():
        note("session up")
        yield
        note("session down")

    @pytest.fixture(scope="module", autouse=True)
    def module(request):
        note("up", request.node.name)
        yield
        note("down", request.node.name)
"""


def notes(path: Path) -> list[str]:
    return path.read_text().splitlines()


async def test_fixtures_are_set_up_once_for_each_slot_and_torn_down_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    tests = "import pytest\n@pytest.mark.parametrize('i', range(4))\ndef test(i): ..."
    write(tmp_path / "tree", {"conftest.py": LOGGING, "test_a.py": tests, "sub/test_b.py": tests})
    records = await run(job(tmp_path / "tree", slots=1))
    assert {record.outcome.value for record in records.values()} == {"passed"}
    assert notes(tmp_path / "notes") == [
        "0 session up",
        *("0 up test_b.py", "0 down test_b.py"),
        *("0 up test_a.py", "0 down test_a.py"),
        "0 session down",
    ]


async def test_a_session_s_fixtures_outlast_a_pause_between_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    write(tmp_path / "tree", {"conftest.py": LOGGING, "test_a.py": "def test_1(): ...\ndef test_2(): ..."})
    the_job = job(tmp_path / "tree", slots=1)
    items = work(await collect(the_job))
    async with PytestRunner().session(the_job) as session:
        for item in items:
            session.submit([item])
            assert [event.index for event in await take(session, 1)] == [item.index]
    lines = notes(tmp_path / "notes")
    assert lines == ["0 session up", *("0 up test_a.py", "0 down test_a.py") * 2, "0 session down"]


async def test_after_a_death_the_rest_of_the_module_runs_in_a_new_process(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "test_a.py": """
            import os, pytest
            @pytest.fixture(scope="module", autouse=True)
            def module(): os.environ["MODULE"] = str(os.getpid())
            @pytest.mark.parametrize("i", range(30))
            def test(i, record_property):
                assert os.environ["MODULE"] == str(os.getpid())
                record_property("pid", os.getpid())
                if i == 11: os.abort()
            """
        },
    )
    records = await run(job(tmp_path, slots=1))
    outcomes = [records[f"test[{i}]"].outcome.value for i in range(30)]
    assert outcomes == ["passed"] * 11 + ["error"] + ["passed"] * 18
    pids = [records[f"test[{i}]"].properties for i in range(30) if i != 11]
    assert len(set(pids[:11])) == 1
    assert len(set(pids[11:])) == 1
    assert pids[0] != pids[-1]


async def test_withdrawn_tests_do_not_run_and_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO", str(tmp_path / "go"))
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    write(
        tmp_path / "tree",
        {
            "test_a.py": """
            import os, time, pytest
            @pytest.mark.parametrize("i", range(20))
            def test(i):
                with open(os.environ["RAN"], "a") as file: print(i, file=file)
                while not os.path.exists(os.environ["GO"]): time.sleep(0.01)
            """
        },
    )
    the_job = job(tmp_path / "tree", slots=1)
    items = work(await collect(the_job))
    first = [item for item in items if item.index < 10]
    second = [WorkItem(LeaseId(2), item.index, item.id, item.scope) for item in items if item.index >= 10]
    async with PytestRunner().session(the_job) as session:
        session.submit(first)
        session.submit(second)
        with trio.fail_after(30):
            async for event in session.events():
                assert event == Started(LeaseId(1), TestIndex(0), 0)
                break
        assert session.withdraw(LeaseId(1)) == list(range(1, 10))
        assert session.withdraw(LeaseId(1)) == []
        (tmp_path / "go").touch()
        assert [event.index for event in await take(session, 11)] == [0, *range(10, 20)]
    assert (tmp_path / "ran").read_text().split() == [str(i) for i in (0, *range(10, 20))]


async def test_with_threads_in_a_conftest_slots_are_spawned(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "conftest.py": """
            import threading, time
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
            """,
            "test_a.py": """
            import os, threading, pytest
            @pytest.mark.parametrize("i", range(6))
            def test(i, worker_id, tmp_path):
                assert threading.active_count() == 2
                assert os.environ["PYTEST_XDIST_WORKER"] == worker_id
                if i == 3: os.abort()
            """,
        },
    )
    records = await run(job(tmp_path))
    assert [records[f"test[{i}]"].outcome.value for i in range(6)] == ["passed"] * 3 + ["error"] + ["passed"] * 2
    assert [records[f"test[{i}]"].stdout for i in (0, 1, 2, 4, 5)] == [""] * 5, "nor pytest's own header"


async def test_a_test_that_this_host_lacks_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, {"test_a.py": "def test_a(): ...", "test_b.py": "import nothing_of_that_name"})
    ids = ["test_a.py::test_gone", "nowhere.py::test_x", "test_b.py::test_y", "test_a.py::test_a"]
    items = [WorkItem(LeaseId(1), TestIndex(i), name, name.split("::")[0]) for i, name in enumerate(ids)]
    async with PytestRunner().session(job(tmp_path)) as session:
        session.submit(items)
        found = {event.index: event.record for event in await take(session, 4)}
    assert [found[TestIndex(i)].outcome.value for i in range(4)] == ["error"] * 3 + ["passed"]
    for i in range(3):
        assert found[TestIndex(i)].message == f"not found in collection on this host: {ids[i]}"
    assert "nothing_of_that_name" in found[TestIndex(2)].longrepr


@pytest.mark.parametrize(
    ("text", "words"),
    [("raise SystemExit(3)", "pytest could not be started"), ("import os\nos._exit(3)", "exit code 3")],
)
async def test_without_a_working_pytest_every_test_says_so(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, {"conftest.py": text, "test_a.py": "def test_a(): ..."})
    item = WorkItem(LeaseId(1), TestIndex(0), "test_a.py::test_a", "test_a.py")
    async with PytestRunner().session(job(tmp_path)) as session:
        for _ in range(2):
            session.submit([item])
            (event,) = await take(session, 1)
            assert event.record.outcome.value == "error"
            assert words in event.record.message


async def test_suites_may_ask_for_xdist_s_groups_and_for_parts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pytest.ini": "[pytest]\naddopts = -x --maxfail=1",
            "test_a.py": """
            import os, time, pytest
            @pytest.mark.xdist_group("one")
            @pytest.mark.parametrize("i", range(6))
            def test_group(i, record_property):
                record_property("pid", os.getpid())
                time.sleep(0.01)
            @pytest.mark.parametrize("i", range(3))
            def test_bad(i): assert 0
            """,
        },
    )
    records = await run(job(tmp_path, "test_a.py::test_group", "test_a.py::test_bad[1]", "test_a.py::test_bad[2]"))
    assert len(records) == 8
    assert len({record.properties for name, record in records.items() if "group" in name}) == 1
    assert [records[f"test_bad[{i}]"].outcome.value for i in (1, 2)] == ["failed", "failed"]


async def test_slots_are_named_as_the_whole_run_counts_them(tmp_path: Path) -> None:
    suite = """
        import os, pytest
        @pytest.mark.parametrize("i", range(6))
        def test_name(i, worker_id, record_property):
            assert os.environ["PYTEST_XDIST_WORKER"] == worker_id
            record_property("name", worker_id)
            record_property("count", os.environ["PYTEST_XDIST_WORKER_COUNT"])
    """
    records = await run(job(write(tmp_path, {"test_a.py": suite}), first_slot=5, slots_total=9))
    names = {dict(record.properties)["name"] for record in records.values()}
    assert names <= {"gw5", "gw6"}
    assert {dict(record.properties)["count"] for record in records.values()} == {"9"}


async def test_output_of_a_running_test_can_be_read(tmp_path: Path) -> None:
    """Live: the test goes on only once its first words were heard."""
    suite = f"""
        import os, sys, time
        def test_talks(capsys):
            print("in capsys")
            with capsys.disabled(): print("and beside it", flush=True)
            os.write(2, b"to stderr")
            while not os.path.exists({str(tmp_path / "heard")!r}): time.sleep(0.01)
    """
    the_job = job(write(tmp_path / "tree", {"test_a.py": suite}))
    items = work(await collect(the_job))
    async with PytestRunner().session(the_job) as session:
        session.submit(items)
        assert session.tail(TestIndex(5), ()) is None
        heard: list[bytes] = [b""] * 4
        offsets: tuple[int, ...] = ()
        with trio.fail_after(SECONDS_MAX):
            while b"beside" not in heard[1]:
                await trio.sleep(0.01)
                found = session.tail(items[0].index, offsets)
                if found is not None:
                    offsets = found.offsets
                    heard = [old + new for old, new in zip(heard, found.pieces, strict=True)]
        (tmp_path / "heard").touch()
        (ended,) = await take(session, 1)
        assert ended.record.outcome is Outcome.PASSED
        assert session.tail(items[0].index, ()) is None


async def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    write(
        tmp_path / "tree", {"good one.sh": "echo fine; echo x > $MESH_ARTIFACTS/kept", "bad.sh": "echo no >&2; exit 7"}
    )
    write(tmp_path / "tree", {"slow.sh": "echo $$ > $PIDS; sleep 1000", "kill.sh": "kill -9 $$"})
    files = ("good one.sh", "bad.sh", "slow.sh", "kill.sh")
    the_job = job(tmp_path / "tree", command="sh {}", files=files, timeout=1.0)
    items = work(await collect(the_job))
    async with PytestRunner().session(the_job) as session:
        session.submit(items)
        found = {event.record.test: event for event in await take(session, 4)}
        good = found["good one.sh"]
        assert good.artifacts is not None
        assert (good.artifacts / "kept").read_text() == "x\n"
    assert (good.record.outcome.value, good.record.stdout) == ("passed", "fine\n")
    bad = found["bad.sh"].record
    assert (bad.outcome.value, bad.message, bad.stderr) == ("failed", "exit code 7", "no\n")
    assert found["slow.sh"].record.message == "timed out after 1 s"
    assert found["kill.sh"].record.outcome.value == "failed"
    assert await gone(int((tmp_path / "pids").read_text()))


async def test_a_session_goes_on_from_the_collection_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    module = "import os\nopen(os.environ['NOTES'], 'a').write('collected\\n')\ndef test_1(): ...\ndef test_2(): ...\n"
    write(tmp_path / "tree", {"test_a.py": module})
    the_job = job(tmp_path / "tree", slots=1)
    async with PytestRunner() as runner:
        for number in (1, 2, 3):
            again = dataclasses.replace(the_job, run=str(number))
            manifest = await runner.collect(again)
            assert not isinstance(manifest, CollectionFailed)
            async with runner.session(again) as session:
                session.submit(work(manifest))
                assert [event.record.outcome.value for event in await take(session, 2)] == ["passed"] * 2
        assert notes(tmp_path / "notes") == ["collected"]
        manifest = await collect(the_job)
        other = dataclasses.replace(the_job, arguments=("-v",))
        async with runner.session(other) as session:
            session.submit(work(manifest))
            assert len(await take(session, 2)) == 2
    assert notes(tmp_path / "notes") == ["collected"] * 3


async def test_a_large_node_keeps_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process's peak memory begins with that of whoever forked it."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    module = "import os\nopen(os.environ['NOTES'], 'a').write('collected\\n')\ndef test_1(): ...\n"
    write(tmp_path / "tree", {"test_a.py": module})
    large = b"x" * (600 * 2**20)
    async with PytestRunner() as runner:
        for number in (1, 2):
            assert not isinstance(await runner.collect(job(tmp_path / "tree", run=str(number))), CollectionFailed)
    assert len(large) > 512 * 2**20, "more than a process that stays may have"
    assert notes(tmp_path / "notes") == ["collected"]


@pytest.mark.parametrize("change", ["module", "hook"])
async def test_no_run_sees_what_another_one_imported_if_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A module outside of the bundle is upgraded between two runs; a conftest that serves a session is begun anew."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    write(tmp_path / "site", {"library.py": "VALUES = [1]"})
    test = "import library, pytest\n@pytest.mark.parametrize('n', library.VALUES)\ndef test_1(n): assert n\n"
    begun = "import os\ndef pytest_sessionstart(): open(os.environ['NOTES'], 'a').write('begun\\n')\n"
    write(tmp_path / "tree", {"test_a.py": test, "conftest.py": begun if change == "hook" else ""})
    the_job = job(tmp_path / "tree", slots=1)
    found = []
    async with PytestRunner() as runner:
        for _ in range(2):
            manifest = await runner.collect(the_job)
            assert not isinstance(manifest, CollectionFailed)
            found.append(len(manifest.tests))
            async with runner.session(the_job) as session:
                session.submit(work(manifest))
                events = await take(session, len(manifest.tests))
                assert {event.record.outcome.value for event in events} == {"passed"}
            if change == "module":
                write(tmp_path / "site", {"library.py": "VALUES = [1, 2, 3]"})
    if change == "module":
        assert found == [1, 3]
    else:
        assert notes(tmp_path / "notes") == ["begun"] * 2


async def test_a_warm_process_knows_which_run_it_serves(tmp_path: Path) -> None:
    module = "import os\ndef test_1(testrun_uid): print(testrun_uid, os.environ['MESH_RUN'])\n"
    write(tmp_path / "tree", {"test_a.py": module})
    said = []
    async with PytestRunner() as runner:
        for number in (7, 8):
            the_job = dataclasses.replace(job(tmp_path / "tree", "-rP", slots=1), run=str(number))
            manifest = await runner.collect(the_job)
            async with runner.session(the_job) as session:
                session.submit(work(manifest))
                said += [event.record.stdout for event in await take(session, 1)]
    assert said == ["7 7\n", "8 8\n"]


async def test_what_goes_wrong_as_processes_end_is_told(tmp_path):
    root = write(
        tmp_path,
        {
            "conftest.py": """
                import os, pytest

                @pytest.fixture(scope="session")
                def database():
                    yield
                    print("closing")
                    raise RuntimeError("the database is gone")

                @pytest.fixture(scope="session")
                def board():
                    yield
                    os._exit(7)
            """,
            "test_a.py": "def test_a(database): pass\n",
            "test_b.py": "def test_b(board): pass\n",
        },
    )
    async with PytestRunner() as runner:
        manifest = await runner.collect(job(root))
        assert isinstance(manifest, Manifest)
        async with runner.session(job(root)) as session:
            session.submit(work(manifest))
            found = await take(session, 2)
            assert [one.record.outcome for one in found] == [Outcome.PASSED, Outcome.PASSED]
    raised, died = sorted(session.endings, key=len, reverse=True)
    assert raised.startswith("@pytest.fixture")
    assert raised.endswith("conftest.py:8: RuntimeError\n\nclosing")
    assert died == "the test process died as it tore down the fixtures that outlive a test: exit code 7"
