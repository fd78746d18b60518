"""What the `Content` port tells of paths, directories and archives."""

import enum
from dataclasses import dataclass

from protocols.ids import Cid


class ContentKind(enum.StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    BLOCK = "block"
    """Of dag-cbor: no part of a tree of files."""


@dataclass(frozen=True, slots=True)
class ContentEntry:
    """What lies at a path."""

    way: tuple[Cid, ...]
    """The blocks from the root to it, which is the last."""
    kind: ContentKind
    size: int
    """Bytes of a file or a block."""
    target: str = ""
    """Of a link."""

    @property
    def cid(self) -> Cid:
        return self.way[-1]


@dataclass(frozen=True, slots=True)
class NamedContent:
    """An entry of a directory; `tsize` is the bytes of all blocks under it, as far as its directory knows."""

    name: str
    cid: Cid
    tsize: int


@dataclass(frozen=True, slots=True)
class Archived:
    """What a CAR file holds: its roots, and how many blocks of how many bytes together."""

    roots: tuple[Cid, ...]
    blocks: int
    bytes: int
