"""A message with a sequence of a hundred thousand others, decoded without having all of it in memory twice, and without
keeping everybody else waiting."""

import dataclasses
import io
import typing
from collections.abc import Generator, Iterator
from typing import Any, Generic, TypeVar

import cbor2

from protocols.codec import decode, raised

M = TypeVar("M")

EMPTY = b"\x80"
"""A sequence of nothing."""

ITEMS_PER_STEP = 1_000


class LongDecoding(Generic[M]):
    """As `decode(data, cls)`, the items of `field`, a `tuple[…, ...]` of messages, one at a time; text in an item that
    equals that of the item before is the same object. Iterated over, so that others have their turn after each step;
    `message` is there at the end."""

    message: M

    def __init__(self, data: bytes, cls: type[M], field: str) -> None:
        self._data = data
        self._cls = cls
        self._field = field

    def __iter__(self) -> Iterator[None]:
        stream = io.BytesIO(self._data)
        place = [known.name for known in dataclasses.fields(self._cls)].index(self._field)  # type: ignore[arg-type]
        try:
            start, items = yield from _items(stream, place)
        except Exception:  # whatever is wrong, `decode` has the words for it
            self.message = decode(self._data, self._cls)
            return
        kind = typing.get_args(typing.get_type_hints(self._cls)[self._field])[0]
        if not all(type(item) is kind for item in items):
            self.message = decode(self._data, self._cls)
            return
        made = decode(self._data[:start] + EMPTY + self._data[stream.tell() :], self._cls)
        self.message = dataclasses.replace(made, **{self._field: items})  # type: ignore[type-var]


def _items(stream: io.BytesIO, place: int) -> Generator[None, None, tuple[int, tuple[Any, ...]]]:
    """Where the sequence at this place among the fields begins, and its items; the stream is then behind it."""
    decoder = cbor2.CBORDecoder(stream)
    _length(stream)
    for _ in range(1 + place):  # the tag, and the fields before
        decoder.decode()
    start = stream.tell()
    items: list[Any] = []
    before: list[Any] = []
    for count in range(_length(stream)):
        if count % ITEMS_PER_STEP == ITEMS_PER_STEP - 1:
            yield
        raw = decoder.decode()
        for number, (old, new) in enumerate(zip(before, raw, strict=False)):
            if type(new) is str and old == new:
                raw[number] = old
        items.append(raised(raw, 2))
        before = raw
    return start, tuple(items)


def _length(stream: io.BytesIO) -> int:
    """Of the array whose head comes next (RFC 8949 section 3); ValueError if it is no array of a length told there."""
    (head,) = stream.read(1)
    kind, told = head >> 5, head & 31
    if kind != 4 or told > 27:
        raise ValueError("not an array")
    return told if told < 24 else int.from_bytes(stream.read(1 << told - 24), "big")
