"""Frozen dataclasses to canonical CBOR and back.

A message is the array `[tag, field, field, …]` in canonical CBOR (RFC 8949 section 4.2.1), where the tag names its
class. Fields are decoded by their annotations and by nothing else: what does not fit is refused, so that
junk bytes can only ever give `RemoteProtocolError`. An array may be shorter than its class when what it lacks
has defaults: that is how a message or a log entry gains a field without a new version. A field that came `later` is
written only if it says something, so that the version before reads all that does not use it.

A block of content is written by `encode_block`: it is DAG-CBOR, so that any IPLD tool reads it, and what is annotated
`Cid` is a link there (tag 42), which such a tool follows. Decoded, a link and the CID's text are the same.

Annotations understood: int (64-bit signed), float, bool, str, bytes, None, enums, NewTypes of those,
`tuple[X, ...]`, `tuple[X, Y]`, `Mapping[str, X]`, `Value`, `Cid`, unions of any of them, and other messages.
Rejected: pickle (executes code), maps with field names (twice the bytes; names would become the contract).
"""

import dataclasses
import enum
import functools
import io
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union, dataclass_transform, overload

import cbor2

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.ids import Cid, cid_binary, cid_text

DEPTH_MAX = 32
"""Nesting of arrays and maps that a decoder follows."""

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

LINK_TAG = 42
"""DAG-CBOR's only tag: a link, as the byte 0 and the binary CID."""

LINKS_REMEMBERED = 1_024
"""All records of a run link the same origin."""

if typing.TYPE_CHECKING:
    Value = str | int | float | bool | bytes | None | tuple["Value", ...] | Mapping[str, "Value"]
else:

    class Value:
        """Plain data of unknown shape, such as a capability: the annotation's stand-in at run time."""


M = TypeVar("M")
N = TypeVar("N")
P = TypeVar("P")

_by_tag: dict[str, type[Any]] = {}
_tag_of: dict[type[Any], str] = {}
_later_of: dict[type[Any], tuple[Any, ...]] = {}
"""The defaults of the fields that came later, in order."""


@dataclass_transform(frozen_default=True)
def message(tag: str, later: int = 0) -> Callable[[type[M]], type[M]]:
    """Class decorator: a frozen, slotted dataclass that travels under `tag` (unique in the program).

    `later`: how many of its last fields came after its first version; they have defaults."""

    def register(cls: type[M]) -> type[M]:
        made: Any = dataclasses.dataclass(frozen=True, slots=True)(cls)
        if tag in _by_tag:
            raise LocalProtocolError(f"two messages have the tag {tag!r}")
        _by_tag[tag] = made
        _tag_of[made] = tag
        _later_of[made] = tuple(field.default for field in dataclasses.fields(made)[-later:]) if later else ()
        known: type[M] = made
        return known

    return register


def encode(value: Any) -> bytes:
    """The canonical CBOR of a message; `LocalProtocolError` if it holds what its class does not allow."""
    return cbor2.dumps(_lower(value), canonical=True)


@overload
def decode(data: bytes, one: type[M], /) -> M: ...
@overload
def decode(data: bytes, one: type[M], two: type[N], /) -> M | N: ...
@overload
def decode(data: bytes, one: type[M], two: type[N], three: type[P], /) -> M | N | P: ...
@overload
def decode(data: bytes, /, *classes: type[Any]) -> Any: ...
def decode(data: bytes, /, *classes: type[Any]) -> Any:
    """The message in `data`, which must be one of `classes`; `RemoteProtocolError` for anything else."""
    stream = io.BytesIO(data)
    try:
        raw = cbor2.load(stream)
    except Exception as error:  # cbor2 raises whatever a semantic tag's constructor raises
        raise RemoteProtocolError(f"not CBOR: {type(error).__name__}") from None
    if stream.tell() != len(data):
        raise RemoteProtocolError(f"{len(data) - stream.tell()} bytes follow the message")
    try:
        made = raised(raw, 0)
    except RecursionError:
        raise RemoteProtocolError("nested too deeply") from None
    if not isinstance(made, classes):
        wanted = ", ".join(_tag_of.get(c, c.__name__) for c in classes)
        raise RemoteProtocolError(f"got message {_tag_of[type(made)]!r} where one of {wanted} is expected")
    return made


def encode_parts(value: Any) -> list[bytes]:
    """The encoding of a message in parts that join to it: its head, then each field. For what is too large to be
    encoded in one go: a caller gives it without a field's items, and puts them, encoded, in that field's place."""
    told = _told(type(value), value)
    head = encode_sequence_head(1 + len(told)) + cbor2.dumps(_tag_of[type(value)])
    return [head, *(cbor2.dumps(_lower(item), canonical=True) for item in told)]


def encode_sequence_head(count: int) -> bytes:
    """What stands before the encodings of `count` items, to make them a tuple."""
    for size, code in ((1, 0x98), (2, 0x99), (4, 0x9A)):
        if count < 24:
            return bytes([0x80 | count])
        if count < 1 << 8 * size:
            return bytes([code]) + count.to_bytes(size, "big")
    raise LocalProtocolError(f"{count} items are no sequence")


def encode_block(value: Any) -> bytes:
    """The strict DAG-CBOR of a message: a `Cid` in it is a link, a float has 64 bits, keys are sorted by length first.
    `LocalProtocolError` as in `encode`."""
    return cbor2.dumps(_lower_block(value))


_PLAIN = frozenset((str, bytes, bool, float, type(None)))
"""What stands in a block as it is."""


def _lower_block(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN or (kind is tuple and not value):
        return value
    tag = _tag_of.get(kind)
    if tag is not None:
        lowered = [item if type(item) in _PLAIN else _lower_block(item) for item in _told(kind, value)]
        for place, link in _links(kind):
            if place < len(lowered):
                lowered[place] = link(lowered[place])
        return [tag, *lowered]
    if isinstance(value, tuple | list) and not _all_int(value):
        return [_lower_block(item) for item in value]
    if isinstance(value, Mapping):
        keys = sorted(map(_key, value), key=lambda key: (len(key.encode()), key.encode()))
        return {key: _lower_block(value[key]) for key in keys}
    return _lower(value)


Linking = Callable[[Any], Any]
_links_of: dict[type[Any], tuple[tuple[int, Linking], ...]] = {}


def _links(cls: type[Any]) -> tuple[tuple[int, Linking], ...]:
    """Which fields of a message hold CIDs, and what makes links of them."""
    known = _links_of.get(cls)
    if known is None:
        hints = typing.get_type_hints(cls)
        made = [_linking(hints[field.name]) for field in dataclasses.fields(cls)]
        known = _links_of[cls] = tuple((place, link) for place, link in enumerate(made) if link is not None)
    return known


def _linking(hint: Any) -> Linking | None:
    """What makes links of the CIDs in a lowered value of this annotation; None if it holds none."""
    if hint is Cid:
        return _link_to
    inner = [_linking(argument) for argument in typing.get_args(hint) if argument is not Ellipsis]
    if not any(inner):
        return None
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        (link,) = [link for link in inner if link is not None]
        return lambda raw: None if raw is None else link(raw)
    if origin is tuple and Ellipsis in typing.get_args(hint):
        return lambda raw: [inner[0](item) for item in raw] if inner[0] else raw
    if origin is tuple:
        return lambda raw: [link(item) if link else item for link, item in zip(inner, raw, strict=True)]
    raise LocalProtocolError(f"no links can be made of {hint!r}")


@functools.lru_cache(maxsize=LINKS_REMEMBERED)
def _link_to(text: str) -> Any:
    """No link of an empty text: nothing is meant."""
    try:
        return cbor2.CBORTag(LINK_TAG, b"\0" + cid_binary(text)) if text else text
    except ValueError as error:
        raise LocalProtocolError(f"{text[:80]!r} is not a CID: {error}") from None


def encode_value(value: Value) -> bytes:
    """Canonical CBOR of plain data."""
    return cbor2.dumps(_lower(value), canonical=True)


def _lower(value: Any) -> Any:
    kind = type(value)
    if kind in (int, str, bytes, bool, float) or value is None:
        if kind is int and not INT_MIN <= value <= INT_MAX:
            raise LocalProtocolError(f"integer {value} does not fit 64 bits")
        return value
    tag = _tag_of.get(kind)
    if tag is not None:
        return [tag, *(_lower(item) for item in _told(kind, value))]
    if kind is tuple and _all_int(value):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_lower(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): _lower(item) for key, item in value.items()}
    if isinstance(value, int | str | bytes | float):
        return value
    raise LocalProtocolError(f"{kind.__name__} has no place on the wire")


def _all_int(items: Any) -> bool:
    """Whether these are integers that fit, and nothing else: asked of all at once, since long sequences are mostly
    that, and most of what is decoded is in long sequences."""
    return set(map(type, items)) == {int} and min(items) >= INT_MIN and max(items) <= INT_MAX


def _told(kind: type[Any], value: Any) -> list[Any]:
    """The fields of a message, without those at the end that came later and have their defaults."""
    told = [getattr(value, name) for name, _, _ in _fields(kind)]
    for default in reversed(_later_of[kind]):
        if type(told[-1]) is not type(default) or told[-1] != default:
            break
        told.pop()
    return told


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise LocalProtocolError(f"map key {key!r} is not a string")
    return key


def raised(raw: Any, depth: int) -> Any:
    """A decoded array whose first item is a known tag, as its message; `RemoteProtocolError` for anything else."""
    if not isinstance(raw, list) or not raw or not isinstance(raw[0], str):
        raise RemoteProtocolError("a message is an array that begins with its tag")
    cls = _by_tag.get(raw[0])
    if cls is None:
        raise RemoteProtocolError(f"unknown message {raw[0][:40]!r}")
    fields = _fields(cls)
    if len(raw) - 1 > len(fields):
        raise RemoteProtocolError(f"message {raw[0]!r} has {len(raw) - 1} fields, at most {len(fields)} are known")
    values = []
    for position, (name, accept, optional) in enumerate(fields, start=1):
        if position >= len(raw):
            if not optional:
                raise RemoteProtocolError(f"message {raw[0]!r} lacks {name!r}")
            break
        ok, value = accept(raw[position], depth + 1)
        if not ok:
            raise RemoteProtocolError(f"message {raw[0]!r} has a wrong {name!r}")
        values.append(value)
    try:
        return cls(*values)
    except ValueError as error:
        raise RemoteProtocolError(f"message {raw[0]!r}: {error}") from None


Accept = Callable[[Any, int], tuple[bool, Any]]
_NO: tuple[bool, Any] = (False, None)
_fields_of: dict[type[Any], tuple[tuple[str, Accept, bool], ...]] = {}


def _fields(cls: type[Any]) -> tuple[tuple[str, Accept, bool], ...]:
    known = _fields_of.get(cls)
    if known is not None:
        return known
    hints = typing.get_type_hints(cls)
    missing = dataclasses.MISSING
    made = _fields_of[cls] = tuple(
        (f.name, _acceptor(hints[f.name]), f.default is not missing or f.default_factory is not missing)
        for f in dataclasses.fields(cls)
    )
    return made


def _acceptor(hint: Any) -> Accept:
    """What turns raw CBOR into a value of the annotation `hint`, or says that it does not fit."""
    if hint is Cid:
        return _accept_cid
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    if hint is Value:
        return _accept_value
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _accept_union([_acceptor(argument) for argument in arguments])
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _accept_sequence(_acceptor(arguments[0]))
        return _accept_fixed([_acceptor(argument) for argument in arguments])
    if origin is not None and issubclass(origin, Mapping):
        return _accept_map(_acceptor(arguments[1]))
    if hint in _tag_of:
        return _accept_message(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _accept_enum(hint)
    if hint is float:
        return _accept_float
    if hint is int:
        return _accept_int
    if hint in (str, bytes, bool):
        return _accept_exact(hint)
    if hint is type(None):
        return lambda raw, depth: (raw is None, None)
    raise LocalProtocolError(f"the codec does not know the annotation {hint!r}")


def _accept_exact(kind: type[Any]) -> Accept:
    return lambda raw, depth: (type(raw) is kind, raw)


def _accept_cid(raw: Any, depth: int) -> tuple[bool, Any]:
    """Text, or a link."""
    if type(raw) is cbor2.CBORTag and raw.tag == LINK_TAG and type(raw.value) is bytes and raw.value[:1] == b"\0":
        return True, _link_text(raw.value)
    return (type(raw) is str, raw)


@functools.lru_cache(maxsize=LINKS_REMEMBERED)
def _link_text(binary: bytes) -> Cid:
    return cid_text(binary[1:])


def _accept_int(raw: Any, depth: int) -> tuple[bool, Any]:
    return (type(raw) is int and INT_MIN <= raw <= INT_MAX, raw)


def _accept_float(raw: Any, depth: int) -> tuple[bool, Any]:
    if type(raw) is float and math.isfinite(raw):
        return True, raw
    return (True, float(raw)) if _accept_int(raw, depth)[0] else _NO


def _accept_enum(kind: type[enum.Enum]) -> Accept:
    members = {(type(member.value), member.value): member for member in kind}

    def accept(raw: Any, depth: int) -> tuple[bool, Any]:
        if type(raw) not in (int, str):
            return _NO
        member = members.get((type(raw), raw))
        return (member is not None, member)

    return accept


def _accept_union(options: list[Accept]) -> Accept:
    def accept(raw: Any, depth: int) -> tuple[bool, Any]:
        for option in options:
            ok, value = option(raw, depth)
            if ok:
                return True, value
        return _NO

    return accept


def _accept_sequence(item: Accept) -> Accept:
    def accept(raw: Any, depth: int) -> tuple[bool, Any]:
        if not isinstance(raw, list) or depth > DEPTH_MAX:
            return _NO
        if item is _accept_int and _all_int(raw):
            return True, tuple(raw)
        made = []
        for entry in raw:
            ok, value = item(entry, depth + 1)
            if not ok:
                return _NO
            made.append(value)
        return True, tuple(made)

    return accept


def _accept_fixed(items: list[Accept]) -> Accept:
    def accept(raw: Any, depth: int) -> tuple[bool, Any]:
        if not isinstance(raw, list) or len(raw) != len(items) or depth > DEPTH_MAX:
            return _NO
        made = []
        for option, entry in zip(items, raw, strict=True):
            ok, value = option(entry, depth + 1)
            if not ok:
                return _NO
            made.append(value)
        return True, tuple(made)

    return accept


def _accept_map(item: Accept) -> Accept:
    def accept(raw: Any, depth: int) -> tuple[bool, Any]:
        if not isinstance(raw, dict) or depth > DEPTH_MAX:
            return _NO
        made = {}
        for key, entry in raw.items():
            ok, value = item(entry, depth + 1)
            if not ok or type(key) is not str:
                return _NO
            made[key] = value
        return True, made

    return accept


def _accept_message(cls: type[Any]) -> Accept:
    tag = _tag_of[cls]

    def accept(raw: Any, depth: int) -> tuple[bool, Any]:
        if not isinstance(raw, list) or not raw or raw[0] != tag or depth > DEPTH_MAX:
            return _NO
        return True, raised(raw, depth)

    return accept


def _accept_value(raw: Any, depth: int) -> tuple[bool, Any]:
    if raw is None or type(raw) in (str, bytes, bool):
        return True, raw
    if type(raw) is int:
        return _accept_int(raw, depth)
    if type(raw) is float:
        return _accept_float(raw, depth)
    if isinstance(raw, list):
        return _accept_sequence(_accept_value)(raw, depth)
    return _accept_map(_accept_value)(raw, depth) if isinstance(raw, dict) else _NO
