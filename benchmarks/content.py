"""Content beside Kubo and plain HTTP: `make bench-content`. Real processes on loopback; a round has all ways in turn.

Each round has content of its own, so that nobody has it yet. "Kept" is part of every fetch but HTTP's: ours and Kubo's
store what they fetch, hashes checked. A node here is its network and its content, without the rest (content_peer.py).
Without Kubo (tests/interop says where it is looked for) its rows are left out, and the goals are the absolute ones.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measures import Table, load, machine
from tests.interop.kubo_daemon import Kubo, kubo_program, new_kubo

KEY = bytes(range(32))
MIB = 1024 * 1024
FILES = 5000
NODES = 10
NODE_MB_MIN, CROSS_MB_MIN, CROSS_SHARE_MIN = 80.0, 35.0, 0.4
PEAK_MB_MAX = 150.0
DELTA_BYTES_MAX, DELTA_SECONDS_MAX = 200_000, 1.0
ANSWER_SECONDS_MAX = 300.0


class Node:
    """A `content_peer` process."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.content_peer", str(home), KEY.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peer, self.addresses = self._line()

    def ask(self, *command: Any) -> dict[str, Any]:
        self.tell(*command)
        return self.told()

    def tell(self, *command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def told(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._line()
        return answer

    @property
    def sent(self) -> int:
        """Bytes, since it began."""
        return int(self.ask("look")["sent"])

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a node of the benchmark died: see above")
        return json.loads(line)

    def meet(self, *others: "Node") -> None:
        for other in others:
            self.ask("know", other.peer, other.addresses)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


class Bench:
    """What all sections share."""

    def __init__(self, folder: Path, quick: bool, stack: ExitStack) -> None:
        self.folder = folder
        self.quick = quick
        self.rounds = 1 if quick else 3
        self.table = Table()
        self._stack = stack
        self._seed = 0

    def node(self, name: str) -> Node:
        node = Node(self.folder / name)
        self._stack.callback(node.close)
        return node

    def kubo(self, name: str) -> Kubo:
        return self._stack.enter_context(new_kubo(self.folder / name, KEY).running())

    def file(self, size: int) -> Path:
        """A file that nobody has yet."""
        self._seed += 1
        path = self.folder / f"file{self._seed}"
        source = random.Random(self._seed)
        with path.open("wb") as file:
            for at in range(0, size, MIB):
                file.write(source.randbytes(min(MIB, size - at)))
        os.sync()
        return path

    def speed(self, what: str, size: int, seconds: Sequence[float], goal: str = "") -> float:
        """A row; the median in MB/s."""
        rates = sorted(size / 1e6 / second for second in seconds)
        median = statistics.median(rates)
        self.table.add(what, f"{median:.0f} MB/s ({rates[0]:.0f} to {rates[-1]:.0f})", goal)
        return median


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Seconds; infinitely many for a Kubo that takes more than a minute, as on a machine that is busy otherwise."""
    began = time.perf_counter()
    try:
        call(*arguments)
    except subprocess.TimeoutExpired:
        return math.inf
    return time.perf_counter() - began


@contextmanager
def http_server(folder: Path) -> Iterator[str]:
    """Its address; python's own, one thread a request."""
    code = (
        "import functools, http.server as h\n"
        f"handler = functools.partial(h.SimpleHTTPRequestHandler, directory={str(folder)!r})\n"
        "server = h.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print(server.server_port, flush=True)\nserver.serve_forever()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def curl(address: str, target: Path) -> None:
    subprocess.run(["curl", "-sf", "-o", str(target), address], check=True)


def single_files(bench: Bench, size: int, kubos: bool) -> None:
    """One file: add, and every way from one process to another."""
    one, two, guest = (bench.node(name) for name in ("one", "two", "guest"))
    two.meet(one)
    if kubos:
        first, second, third = (bench.kubo(name) for name in ("kubo1", "kubo2", "kubo3"))
        second.run("swarm", "connect", first.address)
        guest.ask("know", first.peer, [first.address])
        one.ask("know", third.peer, [third.address])
    took: dict[str, list[float]] = {}

    def note(way: str, seconds: float) -> None:
        took.setdefault(way, []).append(seconds)

    with http_server(bench.folder) as address:
        for _ in range(bench.rounds):
            path = bench.file(size)
            added = one.ask("add", str(path))
            root = added["result"]
            note("add", added["seconds"])
            note("node to node", two.ask("fetch", root, [one.peer])["seconds"])
            note("HTTP", timed(curl, f"{address}/{path.name}", bench.folder / "got"))
            if kubos:
                note("Kubo add", timed(first.run, "add", "-Q", "--cid-version=1", str(path)))
                note("Kubo to Kubo", timed(second.run, "pin", "add", root))
                note("Kubo to us", guest.ask("fetch", root, [first.peer])["seconds"])
                note("us to Kubo", timed(third.run, "pin", "add", root))
            path.unlink()
    table = f"{size // MIB} MiB"
    bench.speed(f"add, {table}", size, took["add"])
    if kubos:
        bench.speed(f"Kubo: ipfs add, {table}", size, took["Kubo add"])
    bench.speed(f"node to node, {table}", size, took["node to node"], f"at least {NODE_MB_MIN:.0f} MB/s")
    bench.speed(f"HTTP (http.server, curl), {table}", size, took["HTTP"])
    if kubos:
        between = bench.speed(f"Kubo to Kubo, {table}", size, took["Kubo to Kubo"])
        goal = (
            f"at least {CROSS_MB_MIN:.0f} MB/s, or {CROSS_SHARE_MIN:g} of Kubo to Kubo: {between * CROSS_SHARE_MIN:.0f}"
        )
        bench.speed(f"Kubo to us, {table}", size, took["Kubo to us"], goal)
        bench.speed(f"us to Kubo, {table}", size, took["us to Kubo"], goal)


def large_file(bench: Bench, size: int) -> None:
    """Speed and peak memory of both ends, in processes that did nothing else."""
    one, two = bench.node("large1"), bench.node("large2")
    two.meet(one)
    path = bench.file(size)
    added = one.ask("add", str(path))
    fetched = two.ask("fetch", added["result"], [one.peer])
    bench.speed(f"node to node, {size // MIB} MiB", size, [fetched["seconds"]], f"at least {NODE_MB_MIN:.0f} MB/s")
    served = one.ask("look")["peak"]
    peaks = f"{fetched['peak'] / 1e6:.0f} MB, the giver's {served / 1e6:.0f} MB"
    bench.table.add(f"its peak memory, {size // MIB} MiB", peaks, f"under {PEAK_MB_MAX:.0f} MB")
    path.unlink()


def make_tree(root: Path, files: int) -> Path:
    """A project in git: modules of 0.5 to 3 kB in some hundred directories. The file to be edited."""
    source = random.Random(7)
    for number in range(files):
        folder = root / f"package{number % 50:02}" / f"part{number % 8}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = (f"x{source.randrange(10**9)} = {source.random()}\n" for _ in range(source.randrange(20, 100)))
        (folder / f"module{number:05}.py").write_text("".join(lines))
    (root / "pytest.ini").write_text("[pytest]\n")
    git = ["git", "-C", str(root), "-c", "user.email=bench@localhost", "-c", "user.name=bench"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "the tree"]):
        subprocess.run([*git, *words], check=True)
    return root / "package03" / "part3" / "module00003.py"


def edited_tree(bench: Bench, kubos: bool) -> None:
    """From a one-line edit to a tree that can be run on another node; whole again, for tar over HTTP."""
    root = bench.folder / "tree"
    root.mkdir()
    edited = make_tree(root, FILES)
    time.sleep(2.1)  # until then a file's times may not tell that it changes again (git calls it racy)
    one, two = bench.node("tree1"), bench.node("tree2")
    two.meet(one)
    parts: dict[str, list[float]] = {"bundle": [], "fetch": [], "checkout": []}
    moved: list[int] = []
    tar: list[float] = []
    former = Path()
    with http_server(bench.folder) as address:
        for number in range(2 + 2 * bench.rounds):
            edited.write_text(f"{edited.read_text()}# edit {number}\n")
            bundled = one.ask("bundle", str(root))
            before = one.sent + two.sent
            fetched = two.ask("fetch", bundled["result"], [one.peer])
            after = one.sent + two.sent
            target = bench.folder / "runs" / str(number)
            written = two.ask("checkout", bundled["result"], str(target), str(former))
            former = target
            if number:
                moved.append(after - before)
                for part, answer in zip(parts, (bundled, fetched, written), strict=True):
                    parts[part].append(answer["seconds"])
                tar.append(timed(_by_tar, bench, root, address))
            else:
                cold = [f"{answer['seconds']:.2f} s" for answer in (bundled, fetched, written)]
                bench.table.add(f"{FILES} files, first time: add, fetch, check out", ", ".join(cold))
    total = [sum(seconds) for seconds in zip(*parts.values(), strict=True)]
    bench.table.add(
        f"a line edited in {FILES} files: ready to run",
        f"{statistics.median(total):.2f} s ({min(total):.2f} to {max(total):.2f})",
        f"under {DELTA_SECONDS_MAX:g} s",
    )
    each = ", ".join(f"{part} {statistics.median(seconds):.2f} s" for part, seconds in parts.items())
    bench.table.add("of it", each)
    bench.table.add("bytes moved, both ways", f"{max(moved) / 1e3:.0f} kB", f"under {DELTA_BYTES_MAX // 1000} kB")
    bench.table.add("the whole tree by tar over HTTP", f"{statistics.median(tar):.2f} s")
    if kubos:
        _edited_in_kubo(bench, root, edited)


def _by_tar(bench: Bench, root: Path, address: str) -> None:
    target = bench.folder / "untarred"
    target.mkdir()
    subprocess.run(["tar", "-cf", str(bench.folder / "tree.tar"), "-C", str(root), "."], check=True)
    curl(f"{address}/tree.tar", bench.folder / "got.tar")
    subprocess.run(["tar", "-xf", str(bench.folder / "got.tar"), "-C", str(target)], check=True)
    shutil.rmtree(target)


def _edited_in_kubo(bench: Bench, root: Path, edited: Path) -> None:
    """The same by stock commands: add the tree again, pin it elsewhere, write it out."""
    first, second = bench.kubo("kubo4"), bench.kubo("kubo5")
    second.run("swarm", "connect", first.address)
    took = []

    def again(target: Path) -> None:
        cid = first.run("add", "-Qr", "--cid-version=1", str(root)).strip()
        second.run("pin", "add", cid)
        second.run("get", "-o", str(target), cid)

    for number in range(1 + bench.rounds):
        edited.write_text(f"{edited.read_text()}# edit for Kubo {number}\n")
        target = bench.folder / f"kubo-tree{number}"
        took.append(timed(again, target))
        shutil.rmtree(target, ignore_errors=True)
    bench.table.add("Kubo: ipfs add -r, pin, get after the edit", f"{statistics.median(took[1:]):.2f} s")


def many_nodes(bench: Bench, size: int) -> None:
    """Nodes that start a run together: each is told of the submitter and of those that were told before."""
    count = 4 if bench.quick else NODES
    tree = bench.folder / "tree"
    tree.mkdir()
    make_tree(tree, FILES)
    submitter, *workers = (bench.node(f"worker{number}") for number in range(1 + count))
    for number, worker in enumerate(workers):
        worker.meet(submitter, *workers[:number])
    for what, path in (("a file", bench.file(size)), (f"{FILES} files", tree)):
        total = size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*.py"))
        root = submitter.ask("add" if path.is_file() else "bundle", str(path))["result"]
        everybody = [submitter, *workers]
        before = [node.sent for node in everybody]
        began = time.perf_counter()
        for number, worker in enumerate(workers, 1):
            worker.tell("fetch", root, [node.peer for node in everybody[:number]])
        for worker in workers:
            worker.told()
        seconds = time.perf_counter() - began
        sent = [node.sent - start for node, start in zip(everybody, before, strict=True)]
        with http_server(bench.folder) as address:
            plain = _all_by_http(bench, path, address, count)
        name = f"{count} nodes fetch {what} ({total / 1e6:.0f} MB) at once"
        bench.table.add(name, f"{seconds:.1f} s; by HTTP{' and tar' if path.is_dir() else ''} {plain:.1f} s")
        shares = [amount / total for amount in sent[1:]]
        bench.table.add(
            "of it sent, in copies of the content",
            f"by the submitter {sent[0] / total:.2f}, by a worker {min(shares):.2f} to {max(shares):.2f}",
            f"the submitter under 3, not {count}",
        )


def _all_by_http(bench: Bench, path: Path, address: str, count: int) -> float:
    began = time.perf_counter()
    source = path
    if path.is_dir():
        source = bench.folder / "tree.tar"
        subprocess.run(["tar", "-cf", str(source), "-C", str(path), "."], check=True)
    commands = [
        subprocess.Popen(["curl", "-sf", "-o", str(bench.folder / f"got{number}"), f"{address}/{source.name}"])
        for number in range(count)
    ]
    for command in commands:
        command.wait()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", choices=("files", "large", "tree", "many"), help="one section")
    args = parser.parse_args()
    kubos = kubo_program() is not None
    with tempfile.TemporaryDirectory(prefix="bench-content-") as name:
        folder = Path(name)
        print(machine(folder), flush=True)
        if not kubos:
            print("No Kubo: its rows are left out (set MESH_KUBO, or run .ci/kubo)", flush=True)
        table = Table()
        sections: dict[str, Callable[[Bench], None]] = {
            "files": lambda bench: single_files(bench, (32 if args.quick else 256) * MIB, kubos),
            "large": lambda bench: large_file(bench, (128 if args.quick else 1024) * MIB),
            "tree": lambda bench: edited_tree(bench, kubos),
            "many": lambda bench: many_nodes(bench, (32 if args.quick else 64) * MIB),
        }
        for section, run in sections.items():
            if args.only in (None, section):
                print(f"-- {section}: {load()}", flush=True)
                inside = folder / section
                inside.mkdir()
                with ExitStack() as stack:
                    bench = Bench(inside, args.quick, stack)
                    bench.table = table
                    run(bench)
                shutil.rmtree(inside, ignore_errors=True)
        print(f"\n{table.markdown()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
