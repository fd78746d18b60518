"""What tests read: kept beside their records where a run asks for it, so that a later run need not run them again.

An input is one line of text: its kind, a colon, and what it is about. "file:a/b.py" is a file of the bundle, "none:a/c"
one that was looked for and was not there, "list:a" the names in a directory, "name:numpy" a top-level module that was
imported (or was not found), "meta:" the metadata of distributions within the bundle. What can't be compared later is
told by the other kinds, with an example: "network:…", "files:…" (outside of the bundle, or written within), and
"processes:…".
"""

import zlib
from array import array
from collections.abc import Iterable, Sequence

from protocols.codec import decode, encode, message
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid, PeerId, TestIndex

UNSEEN = ("network", "files", "processes")
"""Kinds that keep a test from being reused, unless its run allows them."""

UNKNOWN = -1

TABLE_BYTES_MAX = 64 * 1024 * 1024
"""Of a table or an index, once it is unpacked."""

INDEX_FILE = "inputs.cbor"
"""In a report: its `VerdictIndex`, packed."""

Inputs = tuple[str, ...]

_LITTLE = array("I", [1]).tobytes() == b"\x01\x00\x00\x00"
"""Whether this machine holds such numbers as they are written."""


@message("i.table")
class InputTable:
    """The inputs of a chunk's tests. A set is the numbers of its names, 4 bytes each, little-endian, ascending."""

    setting: str
    """The environment, and the variables, that they ran in; compared, not read."""
    hardware: str
    """What they ran on, by `mesh.scheduler.hardware`."""
    names: tuple[str, ...]
    sets: tuple[bytes, ...]
    of: tuple[int, ...]
    """For each of the chunk's tests its set, or `UNKNOWN`."""


@message("i.place")
class Place:
    """Where a verdict came from."""

    setting: str
    hardware: str
    worker: PeerId


@message("i.index")
class VerdictIndex:
    """All verdicts of a run that a later one may take over, in columns: one entry for each of `tests`."""

    manifest: Cid
    context: str
    """Of the run: what else a verdict depends on (`mesh.scheduler.reuse.context`)."""
    names: tuple[str, ...]
    states: tuple[str, ...]
    """What each of `names` was: a file's CID, say."""
    sets: tuple[bytes, ...]
    places: tuple[Place, ...]
    tests: tuple[TestIndex, ...]
    """In the manifest."""
    of: tuple[int, ...]
    """Their sets."""
    at: tuple[int, ...]
    """Their places."""
    durations: tuple[int, ...]
    """Microseconds."""
    records: tuple[Cid, ...]
    refused: tuple[TestIndex, ...] = ()
    """Tests of the manifest with a verdict that no later run may take over: nor any older one."""
    distrusted: tuple[tuple[str, str], ...] = ()
    """Tests that did not pass although no input had changed: not reused until the file that holds them is another.
    (test, that file's CID)."""

    def __post_init__(self) -> None:
        columns = (self.tests, self.of, self.at, self.durations, self.records)
        if len({len(column) for column in columns}) != 1 or len(self.names) != len(self.states):
            raise ValueError("the columns of an index differ in length")
        if max(self.of, default=0) >= len(self.sets) + (not self.of) or min(self.of, default=0) < 0:
            raise ValueError("an entry names a set that is not there")
        if max(self.at, default=0) >= len(self.places) + (not self.at) or min(self.at, default=0) < 0:
            raise ValueError("an entry names a place that is not there")


def packed_set(numbers: Iterable[int]) -> bytes:
    """A set of names, by their numbers."""
    packed = array("I", sorted(numbers))
    if not _LITTLE:
        packed.byteswap()
    return packed.tobytes()


def numbers_of(packed: bytes) -> Sequence[int]:
    """The numbers in a set."""
    numbers = array("I", packed)
    if not _LITTLE:
        numbers.byteswap()
    return numbers


class Names:
    """Numbers for names, and for sets of them, in the order in which they come."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._sets: dict[bytes, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    @property
    def sets(self) -> tuple[bytes, ...]:
        return tuple(self._sets)

    def set_of(self, inputs: Iterable[str]) -> int:
        numbers = {self._names.setdefault(name, len(self._names)) for name in inputs}
        return self._sets.setdefault(packed_set(numbers), len(self._sets))


def table(setting: str, hardware: str, inputs: Sequence[Inputs | None]) -> InputTable:
    """The table of some tests' inputs (None: not known)."""
    names = Names()
    known: dict[int, int] = {}  # most tests share the very same tuple
    of = []
    for one in inputs:
        if one is None:
            of.append(UNKNOWN)
            continue
        if id(one) not in known:
            known[id(one)] = names.set_of(one)
        of.append(known[id(one)])
    return InputTable(setting, hardware, names.names, names.sets, tuple(of))


def unpacked_sets(names: Sequence[str], sets: Sequence[bytes]) -> list[Inputs]:
    """The sets in words; `RemoteProtocolError` for one that names what is not there."""
    try:
        return [tuple(names[number] for number in numbers_of(one)) for one in sets]
    except (IndexError, ValueError):
        raise RemoteProtocolError("a set of inputs is damaged") from None


def pack(value: InputTable | VerdictIndex) -> bytes:
    """Sets of names are alike: this takes a small part of their room."""
    return zlib.compress(encode(value), 6)


def unpack_table(data: bytes) -> InputTable:
    return decode(_inflated(data), InputTable)


def unpack_index(data: bytes) -> VerdictIndex:
    return decode(_inflated(data), VerdictIndex)


def _inflated(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, TABLE_BYTES_MAX)
    except zlib.error as error:
        raise RemoteProtocolError(f"what tests read can't be unpacked: {error}") from None
    if not unpacker.eof:
        raise RemoteProtocolError(f"what tests read takes over {TABLE_BYTES_MAX} bytes, or has no end")
    return found
