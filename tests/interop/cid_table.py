"""What the same bytes and trees are called: by us, by Kubo, by the reference importer, and in data/cids.json.

Run as a program, it asks Kubo and writes that file anew: `python -m tests.interop.cid_table`.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mesh.content.adding import Adder
from mesh.content.unixfs.build import CHUNK_BYTES, LINKS_PER_NODE_MAX, FileBuilder

GOLDEN = Path(__file__).parent / "data" / "cids.json"
FULL = CHUNK_BYTES * LINKS_PER_NODE_MAX
"""Bytes under one node of links."""

_PERIOD = random.Random(7).randbytes(CHUNK_BYTES + 1)  # so that no two chunks of a file are equal


def pattern(size: int) -> Iterator[bytes]:
    """The bytes of a file, in pieces."""
    whole, rest = divmod(size, len(_PERIOD))
    for _ in range(whole):
        yield _PERIOD
    yield _PERIOD[:rest]


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(pattern(size))


def _names(root: Path) -> None:
    for name in ("a", "B", "a.b", "a b", "a-b/c", "a-b/d/e", "0", "~", "-x", "ä", "日本", "z" * 255):
        write(root / name, len(name))
    (root / "hollow").mkdir()


def _hidden(root: Path) -> None:
    for name in (".hidden", ".directory/.inside", "seen/.hidden", "seen/file"):
        write(root / name, len(name))


def _links(root: Path) -> None:
    write(root / "directory" / "file", 10)
    (root / "to-file").symlink_to("directory/file")
    (root / "to-directory").symlink_to("directory")
    (root / "directory" / "up").symlink_to("../to-file")


def _deep(root: Path) -> None:
    write(root.joinpath(*("d" for _ in range(60)), "file"), CHUNK_BYTES + 1)


def _many(count: int) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for number in range(count):
            write(root / "many" / f"n{number:0127d}", number % 10)
        write(root / "beside", 3)

    return make


@dataclass(frozen=True)
class File:
    size: int
    executable: bool = False

    @property
    def name(self) -> str:
        return f"{'executable' if self.executable else 'file'}-{self.size}"

    def make(self, path: Path) -> None:
        write(path, self.size)
        path.chmod(0o755 if self.executable else 0o644)


@dataclass(frozen=True)
class Tree:
    name: str
    fill: Callable[[Path], None]
    links: bool = False
    """The reference importer knows none."""

    def make(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.fill(path)


_SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, FULL - 1, FULL, FULL + 1]
FILES = [File(size) for size in [*_SIZES, FULL + CHUNK_BYTES]]
EXECUTABLES = [File(size, executable=True) for size in [*_SIZES[:6], FULL + 1]]
TREES = [
    Tree("names", _names),
    Tree("hidden", _hidden),
    Tree("links", _links, links=True),
    Tree("deep", _deep),
    Tree("thousands", _many(2000)),
]
LONG = [File(2**30)]
Case = File | Tree
PLAIN: list[Case] = [*FILES, *TREES]
"""What `ipfs add -r --hidden --cid-version=1` is asked for; for executables there is `--preserve-mode` besides."""


def ours(case: Case, path: Path | None) -> str:
    """As `mesh add` has it, without storing anything; a file need not be on disk."""
    if path is None:
        assert isinstance(case, File)
        builder = FileBuilder(case.executable)
        for piece in pattern(case.size):
            builder.feed(piece)
        return str(builder.finish()[1].cid)
    return str(Adder(lambda blocks: None, {}).add(path, None).cid)


def golden() -> dict[str, str]:
    return dict(json.loads(GOLDEN.read_text())["cids"])


if __name__ == "__main__":
    from tests.interop.kubo_daemon import kubo_cid, new_kubo

    with tempfile.TemporaryDirectory() as folder:
        kubo = new_kubo(Path(folder) / "kubo", bytes(32))
        cids = {}
        for case in [*PLAIN, *EXECUTABLES, *LONG]:
            case.make(Path(folder) / case.name)
            cids[case.name] = kubo_cid(kubo, Path(folder) / case.name, isinstance(case, File) and case.executable)
        version = kubo.run("version", "--number").strip()
    GOLDEN.write_text(json.dumps({"kubo": version, "cids": cids}, indent=1) + "\n")
