"""Awkward suites end as they do under a plain pytest, test by test: its verdicts are asked of it, not written down."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from awkward_suite import DEADLY, FILES
from runner_harness import job, run_all, write

SERIAL_SECONDS_MAX = 60.0

TELL = """
import json, os
seen = {}
def pytest_runtest_logreport(report):
    category = CONFIG.hook.pytest_report_teststatus(report=report, config=CONFIG)[0]
    seen.setdefault(report.nodeid, []).append(category)
def pytest_configure(config):
    global CONFIG
    CONFIG = config
def pytest_collectreport(report):
    if report.skipped: seen[report.nodeid] = ["skipped"]
dump, write_file, target, finish = json.dumps, open, os.environ["TOLD"], os._exit
def pytest_unconfigure():
    with write_file(target, "w") as file: file.write(dump(seen))
"""
"""A plugin that writes down what pytest itself calls each report."""

RANK = ("failed", "error", "xfailed", "xpassed", "skipped", "passed")


def serial(root: Path, *arguments: str) -> dict[str, str]:
    """Test -> the worst that a plain pytest said of it."""
    write(root.parent, {"tell/tell_verdicts.py": TELL})
    told = root.parent / "told.json"
    environment = {
        **os.environ,
        "TOLD": str(told),
        "PYTHONPATH": str(root.parent / "tell"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "tell_verdicts", "-p", "no:cacheprovider", f"--rootdir={root}"]
    with subprocess.Popen(
        [*command, "-rN", "-c", str(root / "pytest.ini"), *arguments],  # no summary: it would measure 3 MB of message
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        process.wait(SERIAL_SECONDS_MAX)
    found: dict[str, list[str]] = json.loads(told.read_text())
    verdicts = {}
    for test, categories in found.items():
        name = test if test.isascii() else test.encode("utf-8", "backslashreplace").decode()
        verdicts[name] = min((one for one in categories if one in RANK), key=RANK.index, default="passed")
    return verdicts


@pytest.mark.parametrize("arguments", [(), ("--capture=sys", "-l", "-W", "error")])
async def test_awkward_tests_end_as_in_a_plain_pytest(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    root = write(tmp_path / "tree", {"pytest.ini": "[pytest]\n", **FILES})
    expected = await trio.to_thread.run_sync(serial, root, *arguments)
    found = {record.test: record.outcome.value for record in await run_all(job(root, *arguments, slots=1))}
    assert len(found) > 400
    different = {
        test: (expected.get(test), found.get(test))
        for test in sorted({*expected, *found})
        if expected.get(test) != found.get(test)
    }
    assert different == {}, "(serial, here)"


async def test_what_kills_a_plain_pytest_ends_one_test_alone(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", {"test_deadly.py": DEADLY})
    records = await run_all(job(root))
    wrong = {
        record.test: (record.outcome.value, record.message)
        for record in records
        if record.test.split("::test_")[1].split("_")[0] != record.outcome.value
    }
    assert wrong == {}
