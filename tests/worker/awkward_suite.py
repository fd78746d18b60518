"""Suites of tests that misbehave but that a plain pytest survives: what they do, it can be asked about.

`FILES` is for one slot, in pytest's own order, so that which test an error of a wider fixture falls on can be compared
too. What a plain pytest does not survive is in `DEADLY`, with the verdict that is due.
"""

CONFTEST = """
import pytest

class Odd(pytest.Item):
    def runtest(self): raise ValueError("odd")
    def repr_failure(self, excinfo): return {"not": "text"}
    def reportinfo(self): return self.path, None, "odd"

class OddFile(pytest.File):
    def collect(self):
        yield Odd.from_parent(self, name="an item::of its [own] kind")

def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".odd": return OddFile.from_parent(parent, path=file_path)
"""

PACKAGE = """
import pytest

@pytest.fixture(scope="package")
def package_fails():
    yield
    raise RuntimeError("package teardown")
"""

VALUES = r"""
import pytest, sys, os

class BadRepr(Exception):
    def __repr__(self): raise RuntimeError("no repr")
class BadStr(Exception):
    def __str__(self): raise RuntimeError("no str")
class Worse(Exception):
    def __repr__(self): raise BaseException("worse")
    __str__ = __repr__
class Needs(Exception):
    def __init__(self, a, b): super().__init__(a, b); self.f = lambda: 0
class OwnBase(BaseException): ...

def test_bad_repr(): raise BadRepr(1)
def test_bad_str(): raise BadStr(1)
def test_bad_local():
    class Local:
        def __repr__(self): raise ValueError("local")
    local = Local()
    assert local is None
def test_needs(): raise Needs(1, lambda: 2)
def test_own_base(): raise OwnBase("base")
def test_group(): raise BaseExceptionGroup("many", [ValueError(1), OwnBase("in a group")])
def test_chain():
    error = None
    for i in range(200):
        try: raise ValueError(i) from error
        except ValueError as caught: error = caught
    raise error
def test_loop():
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    raise a
def test_recursion():
    def f(n): return f(n + 1)
    f(0)
def test_recursion_caught():
    def f(n): return f(n + 1)
    with pytest.raises(RecursionError): f(0)
def test_stop(): raise StopIteration
def test_generator_exit(): raise GeneratorExit
def test_huge_message(): raise ValueError("x" * 3_000_000)
def test_huge_compare(): assert list(range(3_000)) == list(range(1, 3_001))
def test_surrogates():
    print("\udcff caf\u00e9 \x00\x1b[31m")
    assert False, "\udcff\x00"
def test_fail_bytes(request):
    if request.config.option.capture != "sys":  # which it breaks for all that follow
        sys.stdout.buffer.write(bytes(range(256)))
    assert b"\xff" == b"\xfe"
def test_plain_fail(): pytest.fail("plain", pytrace=False)
def test_exit_in_fail(): sys.exit("text")
def test_xfail_inside(): pytest.xfail("inside")
@pytest.mark.xfail(raises=KeyError, strict=True)
def test_xfail_other(): raise ValueError
@pytest.mark.xfail(run=False)
def test_xfail_not_run(): os._exit(1)
@pytest.mark.skipif("1 + 1 == 2", reason="sums")
def test_skipif(): ...
@pytest.mark.skipif("nonsense(", reason="bad")
def test_skipif_bad(): ...
def test_returns(): return 3
@pytest.mark.usefixtures("no_such_fixture")
def test_no_fixture(): ...
@pytest.fixture
def exits(): sys.exit(4)
def test_fixture_exits(exits): ...
@pytest.fixture
def skips_late():
    yield
    pytest.skip("late")
def test_skips_late(skips_late): ...
@pytest.fixture
def both():
    yield
    raise ValueError("teardown too")
def test_both(both): assert 0
def test_xfail_both(both, request):
    request.node.add_marker(pytest.mark.xfail)
    assert 0
@pytest.mark.parametrize("n", range(300))
def test_many(n): assert n % 50 != 49
@pytest.mark.parametrize("x", ["", " ", "a/b", "..", "[", "]::[", "\u2028", "\U0001f600", "\x7f", "a" * 300])
def test_names(x): ...
"""

SCOPES = """
import pytest, unittest

@pytest.fixture(scope="module")
def module_fails():
    yield
    raise RuntimeError("module teardown")
@pytest.fixture(scope="class")
def class_fails():
    yield
    raise RuntimeError("class teardown")
@pytest.fixture(scope="module", params=[1, 2])
def numbered(request):
    yield request.param
    if request.param == 1: raise RuntimeError("parameter teardown")
@pytest.fixture(scope="module")
def broken_setup(): raise RuntimeError("module setup")
@pytest.fixture(scope="module", autouse=True)
def automatic(): yield

class TestA:
    def test_1(self, class_fails): ...
    def test_2(self, class_fails): ...
class TestB:
    @classmethod
    def teardown_class(cls): raise RuntimeError("teardown_class")
    def setup_method(self): ...
    def test_1(self): ...
    def test_2(self): assert 0
class TestC(unittest.TestCase):
    def setUp(self): self.addCleanup(self.broken)
    def broken(self): raise RuntimeError("cleanup")
    def test_1(self): ...
    @unittest.expectedFailure
    def test_2(self): self.fail()
    @unittest.skip("unit")
    def test_3(self): ...
class TestD(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise unittest.SkipTest("whole class")
    def test_1(self): ...
def test_numbered_1(numbered): ...
def test_numbered_2(numbered): ...
def test_broken_1(broken_setup): ...
def test_broken_2(broken_setup): ...
def test_package(package_fails): ...
def test_module(module_fails): ...
def test_last(): ...
def teardown_module(): raise RuntimeError("teardown_module")
"""

PROCESS = r"""
import atexit, faulthandler, gc, io, locale, multiprocessing, os, random, select, signal, socket, subprocess, sys
import threading, time, warnings
import pytest

def test_chdir(tmp_path): os.chdir(tmp_path)
def test_trace(): sys.settrace(lambda *a: None); sys.setprofile(None)
def test_handlers():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1): signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
def test_alarm(): signal.alarm(60)
def test_display(): sys.stdout = sys.stderr = io.StringIO(); print("into nothing")
def test_displaced(): print("heard again")
def test_streams_gone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
PATCHES = [
    "os.read", "os.write", "os.pread", "os.listdir", "os.open", "os.close", "os.ftruncate", "os.dup2",
    "os.path.join", "os.path.isdir", "os.getcwd", "os.chdir", "os.fchdir", "os.getpid", "os._exit", "os.kill",
    "select.select", "time.time", "time.perf_counter", "time.monotonic", "time.sleep", "socket.socket", "json.dumps",
    "builtins.open", "builtins.print", "signal.signal", "signal.getsignal", "subprocess.Popen", "sys.exit", "sys.path",
    "struct.Struct", "random.seed", "threading.Thread", "warnings.warn", "gc.collect", "contextlib.suppress",
]
def broken(*args, **kwargs): raise RuntimeError("patched")
@pytest.mark.parametrize("name", PATCHES)
def test_patched(monkeypatch, name): monkeypatch.setattr(name, broken)
@pytest.mark.parametrize("name", [name for name in PATCHES if name not in ("os.getcwd", "os.path.join")])
def test_patched_and_fails(monkeypatch, name):
    monkeypatch.setattr(name, broken)
    assert False, name
def test_environment_replaced(monkeypatch): monkeypatch.setattr(os, "environ", {})
def test_faulthandler(): faulthandler.disable()
def test_thread_fails():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
def test_thread_left(): threading.Thread(target=threading.Event().wait, daemon=True).start()
def test_del_fails():
    class D:
        def __del__(self): raise ValueError("in del")
    D()
def test_fork_returns():
    pid = os.fork()
    if pid == 0: os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
def test_spawned(): assert subprocess.check_output([sys.executable, "-c", "print(3)"]) == b"3\n"
def test_child_exits():
    process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(3,))
    process.start()
    process.join()
    assert process.exitcode == 3
def test_left_running(): subprocess.Popen(["sleep", "30"], start_new_session=False)
def test_atexit(): atexit.register(broken)
def test_exit_code():
    with pytest.raises(SystemExit): sys.exit(3)
def test_warn(): warnings.warn("soft")
def test_low_recursion():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    sys.setrecursionlimit(limit)
def test_descriptors_leak(): [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
def test_umask(): os.umask(0o077)
def test_group(): os.setpgid(0, 0)
# from here on, what stays behind
def test_random(): random.seed(1)
def test_gc(): gc.disable()
def test_hooks():
    sys.excepthook = sys.unraisablehook = threading.excepthook = None
def test_environ():
    os.environ["PATH"] = "/nowhere"
    os.environ.pop("HOME", None)
def test_sys_path(): sys.path[:] = []
def test_modules():
    for name in ("json", "struct", "select", "contextlib"): sys.modules.pop(name, None)
def test_time_for_good(): time.time = time.monotonic = time.sleep = lambda *a: 0
def test_session_kept(tmp_path, worker_id_or_none): ...
@pytest.fixture
def worker_id_or_none(request): return getattr(request.config, "workerinput", None)
"""

IMPORTS = {
    "test_skipped.py": "import pytest\npytest.skip('whole', allow_module_level=True)\ndef test_never(): ...\n",
    "test_importorskip.py": "import pytest\npytest.importorskip('no_such_module_at_all')\ndef test_never(): ...\n",
    "test_empty.py": "import pytest\n@pytest.mark.parametrize('x', [])\ndef test_none(x): ...\n",
    "test_same.py": "def test_a(): ...\ndef test_a(): assert 0\n",
    "test_doc.py": "import sys\nprint(1, file=sys.__stdout__)\nsys.stderr.write('x')\ndef test_after(): ...\n",
    "sub/test_odd.odd": "",
    "sub/__init__.py": "",
    "keeps_streams.py": "from sys import stderr, stdout\n",
    "test_kept_streams.py": """
        import sys, keeps_streams
        from sys import stderr, stdout
        def test_one(): assert keeps_streams.stdout is stdout is sys.stdout
        def test_two(): assert keeps_streams.stderr is stderr is sys.stderr
        def test_three():
            print("kept", file=keeps_streams.stdout)
            assert stdout.fileno() == sys.stdout.fileno()
    """,
}

FILES = {
    "conftest.py": CONFTEST,
    **IMPORTS,
    "test_a_values.py": VALUES,
    "pkg/__init__.py": "",
    "pkg/conftest.py": PACKAGE,
    "pkg/test_scopes.py": SCOPES,
    "pkg/test_then.py": "def test_first(package_fails): ...\ndef test_second(): ...\n",
    "test_z_process.py": PROCESS,
}

DEADLY = r"""
import faulthandler, os, signal, subprocess, sys, threading, time
import pytest

class Hidden(Exception):
    @property
    def __class__(self): raise RuntimeError("no class")
def test_error_hidden(): raise Hidden()
def test_passed_1(): ...
def test_error_local():
    class Local:
        def __repr__(self): raise SystemExit(3)
    local = Local()
    assert local is None
def test_passed_2(): ...
def test_error_descriptors(): os.closerange(3, 256)
def test_passed_3(): ...
def test_passed_4(): ...
@pytest.fixture
def interrupted(): raise KeyboardInterrupt
def test_error_fixture_interrupt(interrupted): ...
@pytest.fixture
def leaves(): pytest.exit("from a fixture")
def test_error_fixture_exit(leaves): ...
@pytest.fixture
def leaves_late():
    yield
    pytest.exit("late")
def test_error_teardown_exit(leaves_late): ...
def test_passed_5(tmp_path): ...
def test_error_sigint(): os.kill(os.getpid(), signal.SIGINT); time.sleep(30)
def test_error_sigterm(): os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)
def test_error_getcwd(monkeypatch):
    monkeypatch.setattr(os, "getcwd", lambda: 1 / 0)
    assert 0
def test_passed_6():
    with pytest.raises(FileNotFoundError): open("nowhere")
def test_passed_removed_directory(tmp_path):
    os.chdir(tmp_path)
    tmp_path.rmdir()
def test_passed_7(): assert os.getcwd()
def test_error_holds_pipe():
    if os.fork() == 0:
        time.sleep(1000)
        os._exit(0)
    os._exit(5)
def test_passed_child_runs_on():
    pid = os.fork()
    if pid == 0: return
    os.waitpid(pid, 0)
def test_passed_child_fails():
    pid = os.fork()
    if pid == 0: assert False, "in the child"
    os.waitpid(pid, 0)
def test_passed_thread_prints():
    def shout():
        while True: print("late"); time.sleep(0.001)
    threading.Thread(target=shout, daemon=True).start()
def test_passed_8(): time.sleep(0.05)
def test_passed_alarm(): signal.alarm(1)
def test_passed_9(): time.sleep(1.2)
@pytest.mark.timeout(0.5)
def test_failed_hang_uninterruptible():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True: time.sleep(1)
@pytest.mark.timeout(0.5)
def test_failed_hang_in_teardown(request):
    request.addfinalizer(lambda: time.sleep(100))
def test_passed_last(): ...
"""
"""The name says the verdict."""
