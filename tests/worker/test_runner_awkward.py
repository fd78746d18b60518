"""A suite in which nearly every test misbehaves: each ends in its own verdict, and none in another's."""

import resource
from pathlib import Path

import pytest
from runner_harness import PEER, collect, gone, job, take, work, write

from mesh.worker.runner import PytestRunner
from protocols.manifests import OUTPUT_BYTES_MAX

SUITE = r"""
import ctypes, os, signal, subprocess, sys, threading, time
import pytest

def test_pass(): ...
def test_fail():
    print("to out")
    print("to err", file=sys.stderr)
    assert 1 == 2, "one is not two"
@pytest.fixture
def bad_setup(): raise RuntimeError("setup broke")
@pytest.fixture
def bad_teardown():
    yield
    raise RuntimeError("teardown broke")
def test_setup_error(bad_setup): ...
def test_teardown_error(bad_teardown): ...
def test_skip(): pytest.skip("not today")
@pytest.mark.skip(reason="by mark")
def test_skip_mark(): ...
@pytest.mark.xfail(reason="known")
def test_xfail(): assert False
@pytest.mark.xfail(reason="surprise")
def test_xpass(): ...
@pytest.mark.xfail(strict=True, reason="strict")
def test_xpass_strict(): ...
@pytest.fixture
def chatty(): print("in setup")
def test_abort(chatty):
    print("before abort")
    os.write(2, b"below python\n")
    os.abort()
def test_after_abort(): ...
def test_segv(): ctypes.string_at(0)
def test_sigkill(): os.kill(os.getpid(), signal.SIGKILL)
def test_exit(): os._exit(3)
def test_exit_0(): os._exit(0)
def test_sys_exit(): sys.exit(5)
def test_interrupt(): raise KeyboardInterrupt
def test_pytest_exit(): pytest.exit("leave me")
@pytest.mark.timeout(0.5)
def test_hang():
    print("hanging")
    child = subprocess.Popen(["sleep", "1000"])
    with open(os.environ["PIDS"], "a") as file: print(child.pid, file=file)
    time.sleep(1000)
def test_50_mb():
    for _ in range(50_000): print("x" * 999)
    print("THE END")
def test_non_utf8():
    os.write(1, b"caf\xe9\n")
    sys.stdout.buffer.write(b"\xfe\n")
    assert False, "lone \udcff"
def test_chdir(tmp_path): os.chdir(tmp_path)
def test_after_chdir(): assert os.path.exists("test_awkward.py")
def test_close_stdout():
    sys.stdout.close()
    sys.stderr.close()
def test_after_close_stdout(): print("still heard")
def test_close_descriptors():
    os.close(1)
    os.close(2)
def test_after_close_descriptors(): os.system("echo from a child")
def test_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD): signal.signal(number, signal.SIG_IGN)
def test_after_signals():
    with pytest.raises(KeyboardInterrupt): os.kill(os.getpid(), signal.SIGINT)
def test_thread(): threading.Thread(target=time.sleep, args=(1000,)).start()
def test_fork():
    pid = os.fork()
    if pid == 0: raise RuntimeError("the child runs on, into pytest")
    assert os.waitpid(pid, 0)[1] != 0
def test_leak():
    child = subprocess.Popen(["sleep", "1000"])
    with open(os.environ["PIDS"], "a") as file: print(child.pid, file=file)
def test_leak_fork():
    pid = os.fork()
    if pid == 0: time.sleep(1000)
    with open(os.environ["PIDS"], "a") as file: print(pid, file=file)
def test_properties(record_property): record_property("a", 1)
def test_log():
    import logging
    logging.getLogger("x").warning("logged")
    assert 0
def test_fixtures(worker_id, testrun_uid, mesh_node, mesh_artifacts, tmp_path):
    assert os.environ["PYTEST_XDIST_WORKER"] == worker_id == "gw" + os.environ["MESH_SLOT"]
    assert os.environ["PYTEST_XDIST_WORKER_COUNT"] == "2"
    assert os.environ["PYTEST_XDIST_TESTRUNUID"] == os.environ["MESH_RUN"] == testrun_uid
    assert os.environ["MESH_WORKER"] == mesh_node
    (mesh_artifacts / "picture.txt").write_text("hi")
def test_no_artifacts(mesh_artifacts): ...
def test_stdin():
    with pytest.raises(OSError): input()
@pytest.mark.parametrize("x", ["\u00fc", "\udcff", "a::b", "new\nline"])
def test_ids(x): ...
"""

VERDICTS = {
    "failed": ["fail", "xpass_strict", "sys_exit", "hang", "non_utf8", "log"],
    "error": [
        "setup_error",
        "teardown_error",
        "abort",
        "segv",
        "sigkill",
        "exit",
        "exit_0",
        "interrupt",
        "pytest_exit",
    ],
    "skipped": ["skip", "skip_mark"],
    "xfailed": ["xfail"],
    "xpassed": ["xpass"],
}


@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
async def test_every_test_ends_in_its_own_verdict(
    tmp_path: Path, capture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = SUITE
    if capture == "no":
        suite = suite.replace("with pytest.raises(OSError): input()", "pass")
    write(tmp_path, {"tree/test_awkward.py": suite})
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    the_job = job(tmp_path / "tree", f"--capture={capture}")
    manifest = await collect(the_job)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with PytestRunner().session(the_job) as session:
        session.submit(work(manifest))
        found = await take(session, len(manifest.tests))
        artifacts = {event.record.test: event.artifacts for event in found if event.artifacts is not None}
        assert [path.name for path in artifacts["test_awkward.py::test_fixtures"].iterdir()] == ["picture.txt"]
        assert len(artifacts) == 1
    records = {event.record.test.partition("::test_")[2]: event.record for event in found}
    assert len(records) == len(found) == len(manifest.tests)
    expected = {name: verdict for verdict, names in VERDICTS.items() for name in names}
    for name, record in records.items():
        assert record.outcome.value == expected.get(name, "passed"), record
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000, "kilobytes, of 50 MB printed"
    for pid in (tmp_path / "pids").read_text().split():
        assert await gone(int(pid)), "a process that a test left outlives the session"

    assert records["fail"].stdout == "to out\n"
    assert records["fail"].stderr == "to err\n"
    assert records["fail"].message == "AssertionError: one is not two"
    assert ">       assert 1 == 2" in records["fail"].longrepr or ">   " in records["fail"].longrepr
    assert [phase.outcome for phase in records["teardown_error"].phases] == ["passed", "passed", "error"]
    assert (records["skip"].message, records["skip_mark"].message) == ("not today", "by mark")
    assert (records["xfail"].message, records["xpass"].message) == ("known", "surprise")
    assert "setup broke" in records["setup_error"].longrepr
    assert (records["abort"].signal, records["segv"].signal, records["sigkill"].signal) == (6, 11, 9)
    assert records["abort"].message == "the test process died: SIGABRT"
    assert "in test_abort" in records["abort"].longrepr
    assert records["exit"].message == "the test process died: exit code 3"
    assert "below python\n" in records["abort"].stderr
    if capture != "sys":  # what capture=sys holds in memory dies with the process
        assert records["abort"].stdout == "in setup\nbefore abort\n"
        assert records["hang"].stdout == "hanging\n"
    assert records["hang"].message == "timed out after 0.5 s"
    assert 0.4 < records["hang"].duration < 5
    assert "in test_hang" in records["hang"].longrepr
    big = records["50_mb"]
    assert OUTPUT_BYTES_MAX <= len(big.stdout) < OUTPUT_BYTES_MAX + 200
    assert big.stdout.endswith("THE END\n")
    assert big.dropped == 50_000 * 1000 + 8 - OUTPUT_BYTES_MAX
    assert sorted(records["non_utf8"].stdout.splitlines()) == ["\\xfe", "caf\\xe9"] or capture == "sys"
    assert "lone \\udcff" in records["non_utf8"].message
    assert records["after_close_stdout"].stdout == "still heard\n"
    assert records["after_close_descriptors"].stdout == "from a child\n"
    assert records["properties"].properties == (("a", "1"),)
    assert "logged" in records["log"].log
    for record in records.values():
        assert record.worker == PEER
        assert record.started > 1e9
        assert record.duration == pytest.approx(sum(phase.duration for phase in record.phases))
