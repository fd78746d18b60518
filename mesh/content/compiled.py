"""Compiled modules that a checkout is given on the host where its tree comes from: to compile a large suite anew takes
longer than to copy what Python and pytest have compiled there before (networkx: 9 s).

A tree's `__pycache__` directories are no part of a bundle. What is taken from them is what Python itself would use
there (PEP 552), under two more conditions: the source in the checkout is the same, byte for byte, and Python's test of
time and size, where it rests on that, can't have been fooled by another edit while it compiled, or by a time that was
set: nothing was done to the source's file since well before. In the checkout it is then bound to its source's hash.
Rejected: taking times of files over into checkouts (Python's test would be all that protects from stale modules).
"""

import importlib.util
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CACHE = "__pycache__"
SUFFIX = ".pyc"

MARGIN_SECONDS = 2.0
"""From the last change of a source, or of what the file system says of it, to the end of its compilation, at least."""

HEADER_BYTES = 16
FLAGS = slice(4, 8)
BY_TIME, BY_HASH = b"\0\0\0\0", b"\3\0\0\0"
"""Flags of a compiled module that is checked against its source: by time and size, and by hash."""

WORD = 2**32


def module_of(name: str) -> str:
    """Whose compiled form a file is, or whose source."""
    return name.partition(".")[0]


def is_bound(path: str | Path) -> bool:
    """Whether this compiled module holds the path of its source: as pytest before 9.2 compiled it, which does not
    correct that when it reads it elsewhere, as Python does."""
    if "-pytest-" not in os.path.basename(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(HEADER_BYTES)[FLAGS] != BY_HASH
    except OSError:
        return True


def carry(source: Path, target: Path) -> int:
    """Give the tree `target` what is compiled in the tree `source` of the modules that both have; how many files that
    were. What can't be read or written is left out."""
    count = 0
    for folder, _, names in os.walk(target):
        there = source / Path(folder).relative_to(target)
        modules = {module_of(name): name for name in names if name.endswith(".py")}
        if modules:
            for path in _compiled(there / CACHE):
                name = modules.get(module_of(path.name))
                if name is not None:
                    with suppress(OSError):
                        count += _carry_one(path, there / name, Path(folder, name))
    return count


def _compiled(cache: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(cache) as found:
        for entry in found:
            if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _carry_one(path: Path, source: Path, target: Path) -> bool:
    """One compiled module; whether it could be had."""
    made = target.parent / CACHE / path.name
    if made.exists() or is_bound(path):
        return False
    data, before, text = path.read_bytes(), source.stat(), target.read_bytes()
    if len(data) < HEADER_BYTES or text != source.read_bytes():
        return False
    wanted = BY_HASH + importlib.util.source_hash(text)
    if data[FLAGS] == BY_TIME:
        told = (int(before.st_mtime) % WORD).to_bytes(4, "little") + (before.st_size % WORD).to_bytes(4, "little")
        changed = max(before.st_mtime, before.st_ctime)
        if data[8:HEADER_BYTES] != told or path.stat().st_mtime < changed + MARGIN_SECONDS:
            return False
    elif data[4:HEADER_BYTES] != wanted:
        return False
    made.parent.mkdir(exist_ok=True)
    partial = made.with_name(f"{made.name}.{secrets.token_hex(4)}")
    try:
        partial.write_bytes(data[:4] + wanted + data[HEADER_BYTES:])
        partial.replace(made)
    finally:
        partial.unlink(missing_ok=True)
    return True
