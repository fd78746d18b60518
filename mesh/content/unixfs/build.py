"""From bytes and names to blocks: files, symlinks, directories, trees.

A file of one chunk is that raw block, with no node around it. Only an executable file has a mode, so that every plain
file has the CID that `ipfs add --cid-version=1` gives it. An executable one has that of `--preserve-mode` (as 0755),
under which Kubo has no raw leaves: its chunks lie in File nodes. The builder holds at most one chunk and 174 links a
level, whatever the file's length.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mesh.content.unixfs.cid import RAW, cid_of
from mesh.content.unixfs.hamt import SHARD_BYTES, build_shards
from mesh.content.unixfs.nodes import EXECUTABLE_MODE, Block, Kind, Link, Node, decode_node, encode_name, encode_node
from protocols.errors import UsageError
from protocols.ids import Cid

CHUNK_BYTES = 262_144
LINKS_PER_NODE_MAX = 174
NAME_BYTES_MAX = 255
DEPTH_MAX = 256
"""Directories within directories."""
CID_BYTES = 36


@dataclass(frozen=True, slots=True)
class Built:
    """A finished file, link or directory: its root, the bytes of all its blocks (`tsize`), and its own bytes
    (`size`)."""

    cid: Cid
    tsize: int
    size: int = 0


class FileBuilder:
    """Bytes in, blocks out, in one pass.

    Invariants: `_levels[i]` holds fewer than 174 finished subtrees of height i, in order; the last chunk is held back
    until the end, so that the root is made there.
    """

    def __init__(self, executable: bool = False) -> None:
        self._executable = executable
        self._rest = bytearray()
        self._levels: list[list[Built]] = [[]]

    def feed(self, data: bytes | memoryview) -> list[Block]:
        """The blocks that `data` completes."""
        self._rest += data
        blocks: list[Block] = []
        start = 0
        while len(self._rest) - start > CHUNK_BYTES:
            self._leaf(bytes(self._rest[start : start + CHUNK_BYTES]), blocks)
            start += CHUNK_BYTES
        del self._rest[:start]
        return blocks

    def finish(self) -> tuple[list[Block], Built]:
        """The remaining blocks, and the root (which is the last of all blocks)."""
        blocks: list[Block] = []
        self._leaf(bytes(self._rest), blocks)
        level = 0
        while level < len(self._levels) - 1:
            if self._levels[level]:
                self._wrap(level, blocks)
            level += 1
        if len(self._levels[level]) > 1:
            self._wrap(level, blocks)
            level += 1
        root = self._levels[level][0]
        if self._executable:
            plain = blocks.pop()
            block = encode_node(replace(decode_node(plain.cid, plain.data), mode=EXECUTABLE_MODE))
            blocks.append(block)
            root = Built(block.cid, root.tsize + len(block.data) - len(plain.data), root.size)
        return blocks, root

    def _leaf(self, data: bytes, blocks: list[Block]) -> None:
        executable = self._executable
        block = encode_node(Node(Kind.FILE, data, size=len(data))) if executable else Block(cid_of(data, RAW), data)
        blocks.append(block)
        self._push(0, Built(block.cid, len(block.data), len(data)), blocks)

    def _push(self, level: int, built: Built, blocks: list[Block]) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(built)
        if len(self._levels[level]) == LINKS_PER_NODE_MAX:
            self._wrap(level, blocks)

    def _wrap(self, level: int, blocks: list[Block]) -> None:
        children, self._levels[level] = self._levels[level], []
        built, block = _file_node(children)
        blocks.append(block)
        self._push(level + 1, built, blocks)


def _file_node(children: list[Built]) -> tuple[Built, Block]:
    size = sum(child.size for child in children)
    links = tuple(Link("", child.cid, child.tsize) for child in children)
    block = encode_node(Node(Kind.FILE, b"", links, size, tuple(child.size for child in children)))
    return Built(block.cid, len(block.data) + sum(child.tsize for child in children), size), block


def build_symlink(target: str) -> tuple[Block, Built]:
    raw = encode_name(target)
    block = encode_node(Node(Kind.SYMLINK, raw))
    return block, Built(block.cid, len(block.data), len(raw))


def build_directory(entries: Mapping[str, Built]) -> tuple[list[Block], Built]:
    """The blocks of one directory, its root the last; sharded from 256 KiB of names and CIDs on, as in Kubo."""
    links = [Link(name, entries[name].cid, entries[name].tsize) for name in sorted(entries, key=encode_name)]
    if sum(len(encode_name(link.name)) + CID_BYTES for link in links) >= SHARD_BYTES:
        blocks, tsize = build_shards(links)
        return blocks, Built(blocks[-1].cid, tsize)
    block = encode_node(Node(Kind.DIRECTORY, links=tuple(links)))
    return [block], Built(block.cid, len(block.data) + sum(link.tsize for link in links))


def build_tree(files: Mapping[str, Built], directories: tuple[str, ...] = ()) -> tuple[list[Block], Built]:
    """A directory of "dir/name" -> what is there, and of further (empty) `directories`; its root is the last block."""
    root: dict[str, Built | dict[str, Any]] = {}
    for path in sorted(files):
        *above, name = split_path(path)
        inside = _descend(root, above, path)
        if name in inside:
            raise UsageError(f"{path!r} is both a file and a directory")
        inside[name] = files[path]
    for path in directories:
        _descend(root, split_path(path), path)
    blocks: list[Block] = []
    return blocks, _build_level(root, blocks)


def split_path(path: str) -> list[str]:
    """The names of a relative path; `UsageError` for what could leave the tree."""
    names = path.split("/")
    if len(names) > DEPTH_MAX:
        raise UsageError(f"{path[:200]!r}… is more than {DEPTH_MAX} directories deep")
    for name in names:
        if not is_safe_name(name):
            raise UsageError(f"{path!r} is not a relative path of plain names")
    return names


def is_safe_name(name: str) -> bool:
    """Whether a directory entry may be written under this name."""
    return (
        name not in ("", ".", "..")
        and "/" not in name
        and "\0" not in name
        and (len(name) <= NAME_BYTES_MAX // 4 or len(encode_name(name)) <= NAME_BYTES_MAX)
    )


def _descend(root: dict[str, Any], names: list[str], path: str) -> dict[str, Any]:
    for name in names:
        root = root.setdefault(name, {})
        if not isinstance(root, dict):
            raise UsageError(f"{path!r} goes through {name!r}, which is a file")
    return root


def _build_level(level: dict[str, Any], blocks: list[Block]) -> Built:
    entries = {name: _build_level(one, blocks) if isinstance(one, dict) else one for name, one in level.items()}
    made, built = build_directory(entries)
    blocks += made
    return built
