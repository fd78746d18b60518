"""What plugins and pytest's lesser features tell of a test, through a real run."""

from pathlib import Path

import pytest
from runner_harness import collect, job, run, take, work, write

from mesh.worker.runner import PytestRunner
from protocols.manifests import Outcome, Record


def plugins(*names: str) -> list[str]:
    return [text for name in names for text in ("-p", name)]


async def test_warnings_are_kept_with_the_test(tmp_path: Path) -> None:
    suite = """
        import warnings
        import pytest
        warnings.warn("at import")
        def test_quiet(): ...
        def test_loud(): warnings.warn("old", DeprecationWarning)
        @pytest.mark.filterwarnings("error")
        def test_error(): warnings.warn("fatal")
        class Mute(UserWarning):
            shown = 0
            def __str__(self):
                self.shown += 1
                if self.shown > 1: raise ValueError
                return "muted"
        def test_mute(): warnings.warn(Mute())
        def test_many():
            for i in range(100): warnings.warn(f"number {i}")
    """
    records = await run(job(write(tmp_path, {"test_w.py": suite}), slots=1))
    assert records["test_quiet"].outcome is Outcome.PASSED
    assert [text.split("\n")[0] for text in records["test_quiet"].warnings] == ["test_w.py:4: UserWarning: at import"]
    assert [text.split("\n") for text in records["test_loud"].warnings] == [
        ["test_w.py:6: DeprecationWarning: old", '  def test_loud(): warnings.warn("old", DeprecationWarning)']
    ]
    assert records["test_error"].outcome is Outcome.FAILED
    assert "ValueError" in records["test_mute"].warnings[0]
    assert len(records["test_many"].warnings) == 20


async def test_subtests(tmp_path: Path) -> None:
    suite = """
        import pytest, unittest
        def test_good(subtests):
            for i in range(3):
                with subtests.test("fine", i=i): pass
        def test_bad(subtests):
            with subtests.test("one", i=1): assert 0, "first"
            with subtests.test(): raise RuntimeError("second")
            with subtests.test("good"): pass
        def test_skips(subtests):
            with subtests.test("s"): pytest.skip("not here")
            with subtests.test("x"): pytest.xfail("known")
        class T(unittest.TestCase):
            def test_unit(self):
                for i in range(3):
                    with self.subTest(i=i): self.assertNotEqual(i, 1)
    """
    records = await run(job(write(tmp_path, {"test_s.py": suite})))
    good, bad, skips, unit = (records[name] for name in ("test_good", "test_bad", "test_skips", "T::test_unit"))
    assert (good.outcome, good.subtests, skips.outcome) == (Outcome.PASSED, (), Outcome.PASSED)
    assert [(sub.name, sub.outcome) for sub in skips.subtests] == [("[s]", "skipped"), ("[x]", "xfailed")]
    assert (bad.outcome, bad.message) == (Outcome.FAILED, "[one] (i=1) AssertionError: first")
    assert [(sub.name, sub.outcome) for sub in bad.subtests] == [("[one] (i=1)", "failed"), ("(<subtest>)", "failed")]
    assert "second" in bad.longrepr
    assert [phase.name for phase in bad.phases] == ["setup", "call", "teardown"]
    assert (unit.outcome, [sub.name for sub in unit.subtests]) == (Outcome.FAILED, ["(i=1)"])


@pytest.mark.parametrize("beside", [(), ("xdist",)])
async def test_rerunfailures(tmp_path: Path, beside: tuple[str, ...]) -> None:
    """Beside xdist it has a thread, with which no slot could be forked."""
    suite = """
        import pytest, threading
        tries = {"n": 0, "fixture": 0}
        @pytest.mark.flaky(reruns=3)
        def test_third_time():
            tries["n"] += 1
            print("try", tries["n"])
            assert tries["n"] == 3
        @pytest.fixture
        def shaky():
            tries["fixture"] += 1
            assert tries["fixture"] > 1
        def test_shaky_setup(shaky): ...
        def test_never(): assert 0
        def test_at_once():
            assert threading.active_count() == 1
    """
    loaded = plugins(*beside, "pytest_rerunfailures")
    records = await run(job(write(tmp_path, {"test_r.py": suite}), *loaded, "--reruns", "1", slots=1))
    third = records["test_third_time"]
    assert (third.outcome, third.reruns, third.flaky) == (Outcome.PASSED, 2, True)
    assert [phase.outcome for phase in third.phases if phase.name == "call"] == ["rerun", "rerun", "passed"]
    assert third.stdout == "try 1\ntry 2\ntry 3\n"
    assert "assert 1 == 3" in third.longrepr
    assert "assert 2 == 3" in third.longrepr
    assert (records["test_shaky_setup"].outcome, records["test_shaky_setup"].reruns) == (Outcome.PASSED, 1)
    never = records["test_never"]
    assert (never.outcome, never.reruns, never.flaky) == (Outcome.FAILED, 1, False)
    at_once = records["test_at_once"]
    assert (at_once.outcome, at_once.reruns, at_once.flaky) == (Outcome.PASSED, 0, False)


async def test_asynchronous_tests(tmp_path: Path) -> None:
    files = {
        "test_trio.py": """
            import pytest, trio
            @pytest.fixture
            async def number():
                await trio.sleep(0)
                yield 3
            @pytest.mark.trio
            async def test_c(nursery, number): assert number == 3
            @pytest.mark.trio
            async def test_d(): raise ValueError("in trio")
            """,
        "test_anyio.py": """
            import anyio, pytest
            @pytest.fixture(scope="module", params=["asyncio", "trio"])
            def anyio_backend(request): return request.param
            @pytest.fixture(scope="module")
            async def shared():
                await anyio.sleep(0)
                yield []
            @pytest.mark.anyio
            async def test_e(shared): shared.append(1)
            @pytest.mark.anyio
            async def test_f(shared): await anyio.sleep(0)
            """,
    }
    args = plugins("pytest_trio.plugin", "anyio")
    records = await run(job(write(tmp_path, files), *args))
    outcomes = {name: record.outcome.value for name, record in records.items()}
    expected = {f"test_{name}[{backend}]": "passed" for name in "ef" for backend in ("asyncio", "trio")}
    assert outcomes == {**expected, "test_c": "passed", "test_d": "failed"}
    assert "in trio" in records["test_d"].longrepr


@pytest.mark.parametrize("capture", ["fd", "sys"])
async def test_caplog_capsys_and_properties(tmp_path: Path, capture: str) -> None:
    suite = """
        import logging, sys
        def test_caplog(caplog):
            with caplog.at_level(logging.INFO):
                logging.getLogger("a").info("told")
            assert caplog.messages == ["told"]
            assert caplog.record_tuples[0][2] == "told"
        def test_capsys(capsys):
            print("seen")
            assert capsys.readouterr().out == "seen\\n"
            print("after")
        def test_disabled(capsys):
            with capsys.disabled(): print("straight out")
        class Odd:
            def __str__(self): raise ValueError("no")
        def test_properties(record_property, record_testsuite_property):
            record_testsuite_property("suite", 1)
            record_property("odd", Odd())
            record_property("n", 3)
        def test_huge(record_property):
            for i in range(300): record_property(f"p{i}", "x" * 1_000_000)
    """
    records = await run(job(write(tmp_path, {"test_c.py": suite}), f"--capture={capture}"))
    assert {record.outcome for record in records.values()} == {Outcome.PASSED}
    assert "told" in records["test_caplog"].log
    assert records["test_capsys"].stdout == "after\n"
    assert records["test_disabled"].stdout == "straight out\n"
    (odd, shown), number = records["test_properties"].properties
    assert (odd, shown, number) == ("odd", "<Odd: its text can't be had: ValueError>", ("n", "3"))
    assert 60_000 < sum(len(value) for _, value in records["test_huge"].properties) < 70_000


async def test_timeouts_of_the_plugin(tmp_path: Path) -> None:
    suite = """
        import time, pytest
        def test_slow(): time.sleep(60)
        @pytest.mark.timeout(0.5, method="thread")
        def test_thread(): time.sleep(60)
        def test_fast(): ...
    """
    records = await run(job(write(tmp_path, {"test_t.py": suite}), *plugins("pytest_timeout"), "--timeout=0.3"))
    assert records["test_slow"].outcome is Outcome.FAILED
    assert "Timeout" in records["test_slow"].message
    assert records["test_thread"].outcome in (Outcome.FAILED, Outcome.ERROR)
    assert records["test_fast"].outcome is Outcome.PASSED


SHUFFLE = """
    # What pytest-randomly does with its option, its seed and its list.
    import random, zlib
    def pytest_addoption(parser):
        parser.addoption("--randomly-seed", dest="randomly_seed", default="default")
    def pytest_configure(config):
        if config.option.randomly_seed == "default": config.option.randomly_seed = random.Random().getrandbits(32)
    def pytest_collection_modifyitems(config, items):
        random.Random(config.option.randomly_seed).shuffle(items)
    def pytest_runtest_call(item):
        random.seed(int(item.config.option.randomly_seed) + zlib.crc32(item.nodeid.encode()))
"""


async def test_random_order_is_one_order(tmp_path: Path) -> None:
    """A plugin that shuffles the whole list has it whole, and each test has the same seed on every host."""
    suite = """
        import random
        import pytest
        @pytest.mark.parametrize("i", range(8))
        def test_draw(i, record_property): record_property("drawn", random.random())
    """
    root = write(tmp_path, {"shuffle.py": SHUFFLE, **{f"test_{name}.py": suite for name in "abc"}})

    async def hosts(number: int, *arguments: str) -> tuple[list[str], list[dict[str, Record]]]:
        the_job = job(root, *plugins("shuffle"), *arguments)
        manifest = await collect(the_job)
        found = []
        for _ in range(number):
            async with PytestRunner().session(the_job) as session:
                session.submit(work(manifest))
                events = await take(session, len(manifest.tests))
                found.append({event.record.test: event.record for event in events})
        return [test.id for test in manifest.tests], found

    order, (one, two) = await hosts(2)
    assert order != sorted(order)
    assert {name: record.properties for name, record in one.items()} == {
        name: record.properties for name, record in two.items()
    }
    assert {record.outcome for record in one.values()} == {Outcome.PASSED}
    given, (three,) = await hosts(1, "--randomly-seed=5")
    assert sorted(given) == sorted(order)
    assert given != order
    assert three[order[0]].properties != one[order[0]].properties
