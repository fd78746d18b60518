"""Tests that need several hosts at once, with real nodes: they have them to themselves, and what becomes of them when
there are too few, or one dies."""

import json
import signal
from collections.abc import Iterator

import pytest

from tests.processes.lab import Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SLOTS = {"a": 1, "b": 2, "c": 2}
TOO_FEW = "1 test needs 4 hosts at once, and 3 would do"

GANGS = """
import contextlib, ipaddress, json, os, time
import pytest

SHARED = os.environ["SHARED_FOLDER"]
with open(os.path.join(SHARED, "slots")) as told:
    SLOTS = json.load(told)

@contextlib.contextmanager
def slot_of(peer):
    '''One of the slots of a node: fails if as many tests as it has slots are there already.'''
    for number in range(SLOTS[peer]):
        path = os.path.join(SHARED, f"{peer}-{number}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            break
    else:
        raise AssertionError(f"no slot of {peer} is free")
    try:
        yield
    finally:
        os.remove(path)

def both_are_here(name):
    open(os.path.join(SHARED, f"here-{name}"), "w").close()
    until = time.monotonic() + 60
    while not all(os.path.exists(os.path.join(SHARED, f"here-{one}")) for one in range(2)):
        assert time.monotonic() < until, "the other one does not come"
        time.sleep(0.01)

@pytest.mark.resources(hosts=2)
@pytest.mark.parametrize("n", range(8))
def test_pair(n, mesh_hosts, mesh_node):
    first, second = mesh_hosts
    assert first.peer == mesh_node != second.peer
    assert [host["peer"] for host in json.loads(os.environ["MESH_HOSTS"])] == [first.peer, second.peer]
    for host in mesh_hosts:
        assert [ipaddress.ip_address(address) for address in host.addresses]
    with slot_of(first.peer), slot_of(second.peer):
        if n < 2:
            both_are_here(n)
        time.sleep(0.05)

@pytest.mark.parametrize("n", range(24))
def test_plain(n, mesh_node):
    assert "MESH_HOSTS" not in os.environ
    with slot_of(mesh_node):
        time.sleep(0.02)
"""

WAITING = """
import os, time
import pytest

@pytest.mark.resources(hosts=2)
def test_it(mesh_hosts):
    with open(os.path.join(os.environ["SHARED_FOLDER"], "hosts"), "a") as told:
        told.write(" ".join(host.peer for host in mesh_hosts) + "\\n")
    while not os.path.exists(os.path.join(os.environ["SHARED_FOLDER"], "go")):
        time.sleep(0.02)
"""

MANY = """
import pytest

@pytest.mark.resources(hosts=4)
def test_many(): ...

def test_plain(): ...
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("gangs")
    (folder / "shared").mkdir()
    with lab(folder) as made:
        made.variables = {name: {"SHARED_FOLDER": str(folder / "shared")} for name in SLOTS}
        for name, slots in SLOTS.items():
            made.start(name, *(() if name == "a" else ("--join", made.ticket("a"))), slots=slots)
        made.agreed(*SLOTS)
        yield made


@pytest.fixture(scope="module")
def hopeless(three: Lab) -> str:
    """A run that waits for more hosts than there are, and says so: while others run, for as long as it is let."""
    run = three.detached(three.suite("many", MANY), home="a")
    why: list[str] = []

    def told() -> bool:
        why[:] = [three.mesh("why", run, home="c").stdout]
        return TOO_FEW in why[0]

    three.until(told, "the run says why it waits")
    assert "start 1 more worker" in why[0]
    return run


def test_hosts_are_had_at_once_by_two_and_nobody_else_has_their_slots(three: Lab, hopeless: str) -> None:
    slots = {three.peer(name): count for name, count in SLOTS.items()}
    (three.folder / "shared" / "slots").write_text(json.dumps(slots))
    done = three.mesh("run", str(three.suite("gangs", GANGS)), "--json", home="b", check=False)
    finished = json.loads(done.stdout.splitlines()[-1])
    assert (finished["exit_code"], finished["counts"]["passed"]) == (0, 32), done.stdout


def test_too_few_hosts_end_the_run_with_the_reason(three: Lab, hopeless: str) -> None:
    done = three.mesh("watch", hopeless, home="b", check=False)
    assert (done.returncode, TOO_FEW in done.stdout + done.stderr) == (10, True), done.stdout


def test_the_test_goes_on_elsewhere_when_a_companion_dies(three: Lab) -> None:
    """The last test here: a node is gone after it."""
    run = three.detached(three.suite("waiting", WAITING), home="a")
    told = three.folder / "shared" / "hosts"
    three.until(lambda: told.exists() and told.read_text().count("\n") == 1, "it runs on two hosts")
    leader, companion = told.read_text().split()
    names = {three.peer(name): name for name in SLOTS}
    three.kill(names[companion], signal.SIGKILL)
    three.until(lambda: told.read_text().count("\n") == 2, "it runs on two others")
    assert companion not in told.read_text().splitlines()[1].split()
    (three.folder / "shared" / "go").touch()
    events = list(three.events("watch", run, home=names[leader]))
    assert events[-1]["exit_code"] == 0
    verdicts = [event for event in events if event["event"] == "verdict"]
    assert [(event["outcome"], event["attempt"]) for event in verdicts] == [("passed", 2)]
