"""A checkout that nobody needs any more, made the start of the next one: what is in both need not be written again.

Thousands of small files take a second to write, and as long to remove; from one version of a tree to the next a few of
them change. So of each checkout is remembered what was written, with what the file system says of it. A file that is as
it was written is taken over; what a test changed, or left there, is not, but for compiled modules whose source is taken
over (Python goes by the source's time and size, which then are the same).

Rejected: hard links to files of another checkout (a test that writes to one changes both).
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mesh.content.compiled import CACHE, SUFFIX, is_bound, module_of
from protocols.ids import Cid

Stamp = tuple[int, ...]


@dataclass(slots=True)
class Leaf:
    """A file or a link (which has a `target`)."""

    cid: Cid
    target: str | None = None
    stamp: Stamp = ()


@dataclass(slots=True)
class Folder:
    """A directory; its `cid` is empty when something that belongs in it is not there."""

    cid: Cid
    entries: dict[str, "Leaf | Folder"] = field(default_factory=dict)
    mode: int = 0


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes with a file: its ctime does, whatever is done to it."""
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def tidy(path: str, folder: Folder) -> None:
    """Remove from the directory at `path` what is not as it was written, and from `folder` what is not there."""
    left = dict(folder.entries)
    whole = True
    with os.scandir(path) as found:
        there = list(found)
    for entry in there:
        known = left.pop(entry.name, None)
        if _is_sound(entry, known):
            if isinstance(known, Folder):
                tidy(entry.path, known)
                whole = whole and known.cid != ""
        elif entry.name != CACHE or not entry.is_dir(follow_symlinks=False):
            remove(entry.path)
            whole = whole and known is None
            folder.entries.pop(entry.name, None)
    for name in left:
        del folder.entries[name]
    if left or not whole:
        folder.cid = Cid("")
    if CACHE not in folder.entries:
        sources = {name[:-3] for name in folder.entries if name.endswith(".py")}
        drop_compiled(path, lambda module: module not in sources)


def _is_sound(entry: "os.DirEntry[str]", known: Leaf | Folder | None) -> bool:
    if known is None:
        return False
    status = entry.stat(follow_symlinks=False)
    if isinstance(known, Folder):
        return stat.S_ISDIR(status.st_mode) and status.st_mode == known.mode
    return stamp_of(status) == known.stamp


def drop_compiled(path: str, doomed: Callable[[str], bool]) -> None:
    """Remove what was compiled of the `doomed` modules of the directory at `path`, what holds that path, and what is no
    such thing."""
    try:
        with os.scandir(f"{path}/{CACHE}") as found:
            there = list(found)
    except FileNotFoundError:
        return
    for entry in there:
        compiled = entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False)
        if not compiled or doomed(module_of(entry.name)) or is_bound(entry.path):
            remove(entry.path)


def links_of(path: str, item: Leaf | Folder) -> Iterator[tuple[str, str]]:
    """The links in it as (path, target)."""
    if isinstance(item, Folder):
        for name, inside in item.entries.items():
            yield from links_of(f"{path}/{name}" if path else name, inside)
    elif item.target is not None:
        yield path, item.target


def remove(path: str) -> None:
    """A file, a link, or all of a directory."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
