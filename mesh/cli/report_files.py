"""A report's files for reporters: fetched when one is asked for, or in a directory where all of them lie already.

Tests' artifacts may be large, and most reporters want none of them: each part is fetched by its own CID.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from mesh.cli.client import Client
from protocols.errors import UsageError


def _is_file(path: Path) -> bool:
    """A report may come from anybody, and a link lead anywhere."""
    return path.is_file() and not path.is_symlink()


def _in_order(path: Path) -> tuple[int, str]:
    """Names begin with numbers, which may outgrow their zeros."""
    return len(path.name), path.name


class DirectoryFiles:
    """`mesh.reporters.model.Files`, of a directory as `mesh results` writes it."""

    def __init__(self, directory: Path, client: Client | None = None) -> None:
        self._directory = directory
        self._client = client
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def read(self, name: str) -> bytes | None:
        path = self._directory / name
        return path.read_bytes() if _is_file(path) else None

    def lines(self, name: str) -> Iterator[bytes]:
        path = self._directory / name
        folder = path.is_dir() and not path.is_symlink()
        for file in filter(_is_file, sorted(path.iterdir(), key=_in_order) if folder else [path]):
            with file.open("rb") as lines:
                yield from lines

    def artifacts(self, beginning: str) -> list[Path]:
        folder = self._directory / "artifacts"
        return [] if folder.is_symlink() else sorted(filter(_is_file, folder.rglob(f"{beginning}*")))

    def tree(self, bundle: str, name: str) -> Path | None:
        if self._client is None:
            return None
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise UsageError(f"the report calls its tree {name[:80]!r}, which is no name of a directory")
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-tree-")))
        self._client.post("/api/checkout", {"cid": bundle, "target": str(folder / name)})
        return folder / name


class _Fetched(DirectoryFiles):
    """Of a report in the mesh: its directory is filled as it is read."""

    def __init__(self, client: Client, cid: str, directory: Path) -> None:
        super().__init__(directory, client)
        self._node = client
        self._cid = cid
        self._asked: set[str] = set()

    def read(self, name: str) -> bytes | None:
        self._fetch(name)
        return super().read(name)

    def lines(self, name: str) -> Iterator[bytes]:
        self._fetch(name)
        return super().lines(name)

    def artifacts(self, beginning: str) -> list[Path]:
        self._fetch("artifacts")
        return super().artifacts(beginning)

    def _fetch(self, name: str) -> None:
        """A file or directory of the report, if it has one of that name."""
        if name in self._asked:
            return
        self._asked.add(name)
        with contextlib.suppress(UsageError):
            cid = self._node.resolve(self._cid, name)
            if "." not in name:
                self._node.post("/api/checkout", {"cid": cid, "target": str(self._directory / name)})
                return
            with (self._directory / name).open("wb") as file:
                file.writelines(self._node.read(cid))


@contextlib.contextmanager
def fetched(client: Client, cid: str) -> Iterator[DirectoryFiles]:
    """For as long as the block runs."""
    with (
        tempfile.TemporaryDirectory(prefix="mesh-report-") as folder,
        _Fetched(client, cid, Path(folder)) as files,
    ):
        yield files
