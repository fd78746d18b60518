"""The wire: every message there and back, one form for each value, and nothing but a clear refusal for junk."""

import contextlib
import enum
import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Mapping
from typing import Any, Union

import cbor2
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import protocols
from protocols import codec
from protocols.codec import DEPTH_MAX, Value, decode, encode, encode_value
from protocols.commands import COMMANDS, Command, Complete, Found, Grant, PinReference, Placement, TaskRange
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.inputs import UNSEEN, Place, VerdictIndex
from protocols.manifests import (
    PREEMPT_MODES,
    CollectedTest,
    Device,
    EnvironmentInfo,
    Manifest,
    Outcome,
    RunSpec,
)
from protocols.presence import Presence, Role
from protocols.raft import AppendEntries, Configuration, Entry, EntryKind, GroupMessage, InstallSnapshot
from tests.properties import examples

for _module in pkgutil.iter_modules(protocols.__path__):
    importlib.import_module(f"protocols.{_module.name}")

MESSAGES = [cls for cls in codec._tag_of if cls.__module__.startswith("protocols.")]
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation, as the codec understands it."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Value:
        return VALUES
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(argument) for argument in arguments])
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return st.lists(values_of(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(st.text(max_size=8), values_of(arguments[1]), max_size=3)
    if hint in codec._tag_of:
        return messages_of(hint)
    if issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    return {
        int: INT64,
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        str: st.text(max_size=8),
        bytes: st.binary(max_size=8),
        type(None): st.none(),
    }[hint]


def messages_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Instances of a message class; of one with checks of its own, those that it allows."""
    if cls is Complete:
        rows = st.lists(st.tuples(INT64, st.integers(0, 5), INT64), max_size=5)
        return st.builds(completion, INT64, st.text(max_size=8), rows)
    if cls is VerdictIndex:
        names, rows = st.lists(st.tuples(TEXT, TEXT), max_size=3), st.lists(st.tuples(INT64, INT64, TEXT), max_size=5)
        return st.builds(index, names, st.binary(max_size=8), messages_of(Place), rows, st.tuples(INT64))
    hints = typing.get_type_hints(cls)
    fields = {name: values_of(hints[name]) for name, _, _ in codec._fields(cls)}
    if not hasattr(cls, "__post_init__"):
        return st.builds(cls, **fields)
    for name in fields:
        if hints[name] is int:
            fields[name] = st.integers(1, 100)
        elif hints[name] is float:
            fields[name] = st.floats(0, 100)
        elif name == "preempt":
            fields[name] = st.sampled_from(PREEMPT_MODES)
        elif name in ("locks", "cached_allow"):
            fields[name] = st.sets(st.sampled_from(UNSEEN)).map(sorted).map(tuple)
    return st.fixed_dictionaries(fields).map(lambda values: allowed(cls, values))


def completion(lease: int, chunk: str, rows: list[tuple[int, int, int]]) -> Complete:
    tests, outcomes, durations = zip(*rows, strict=True) if rows else ((), (), ())
    return Complete(LeaseId(lease), Cid(chunk), tests, bytes(outcomes), durations)


def index(names: Any, members: bytes, place: Place, rows: Any, refused: Any) -> VerdictIndex:
    tests, durations, records = zip(*rows, strict=True) if rows else ((), (), ())
    named, states = zip(*names, strict=True) if names else ((), ())
    first, distrusted = (0,) * len(rows), tuple(names[:1])
    return VerdictIndex(
        Cid("m"), "c", named, states, (members,), (place,), tests, first, first, durations, records, refused, distrusted
    )


def allowed(cls: type[Any], values: dict[str, Any]) -> Any:
    try:
        return cls(**values)
    except ValueError:
        reject()


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_round_trip(cls: type[Any]) -> None:
    @settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
    @given(messages_of(cls))
    def check(made: Any) -> None:
        data = encode(made)
        again = decode(data, cls)
        assert again == made
        assert type(again) is type(made)
        assert encode(again) == data
        assert cbor2.loads(data)[0] == codec._tag_of[cls]

    check()


def test_tags_are_unique() -> None:
    assert len(MESSAGES) > 40
    assert len({codec._tag_of[cls] for cls in MESSAGES}) == len(MESSAGES)


def test_all_commands_are_listed() -> None:
    assert typing.get_args(Command) == COMMANDS
    assert {cls for cls in MESSAGES if codec._tag_of[cls].startswith("c.")} == {
        *COMMANDS,
        TaskRange,
        PinReference,
        Placement,
    }


SPEC = RunSpec(Cid("b"), "n", "p", PeerId("x"))
GRANT = Grant(RunId(1), PeerId("w"), 2, (TaskRange(0, 3),))


def test_canonical() -> None:
    """The very bytes: a change here is a new version of the wire."""
    assert encode(GRANT).hex() == "8567632e6772616e740161770281" + "8567632e72616e676500030000"
    capabilities = {"b": 1, "aa": 2, "a": (1, {"z": None, "y": 1.5})}
    one = Presence(PeerId("p"), "n", Role.AUTO, 1, 2, (), 1, 0, False, capabilities, {}, (), ())
    other = decode(encode(one), Presence)
    assert encode(one) == encode(other)
    assert encode_value({"b": 1, "a": 2}) == encode_value({"a": 2, "b": 1})


def test_a_message_may_gain_a_field_with_a_default() -> None:
    short = cbor2.dumps(["c.range", 5, 2], canonical=True)
    assert decode(short, TaskRange) == TaskRange(5, 2, 0, 0)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (["c.found"], "lacks 'mesh'"),
        (["c.found", "a", 1], "has 2 fields, at most 1"),
        (["c.found", 5], "wrong 'mesh'"),
        (["c.found", b"a"], "wrong 'mesh'"),
        (["c.unheard-of", 5], "unknown message 'c.unheard-of'"),
        (["c.range", 0, 0], "not a range of tests"),
        (["c.range", True, 1], "wrong 'first'"),
        (["c.range", 2**64, 1], "wrong 'first'"),
        (["c.range", 0.0, 1], "wrong 'first'"),
        (["c.grant", 1, "w", 1, [["c.found", "x"]]], "wrong 'tasks'"),
        (["c.complete", 1, "b", [1], b"", [1]], "differ in length"),
        (["c.complete", 1, "b", [1], b"\x06", [1]], "unknown outcome"),
        (["m.spec", "b", "n", "p", "x", [], None, [], 101], "priority 101"),
        (["c.finish", 1, None, 0, math.nan], "wrong 'at'"),
        (["c.finish", 1, None, 0, math.inf], "wrong 'at'"),
        ([], "begins with its tag"),
        ([5], "begins with its tag"),
        ({"a": 1}, "begins with its tag"),
        ("c.found", "begins with its tag"),
        (["m.record", "t", "exploded", 0.0, 0.0, "w", 0, 1], "wrong 'outcome'"),
    ],
)
def test_what_does_not_fit_is_refused(raw: Any, said: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(cbor2.dumps(raw), *MESSAGES)
    assert said in str(caught.value)


def test_an_unexpected_message_is_refused_by_name() -> None:
    with pytest.raises(RemoteProtocolError, match=r"got message 'c\.found' where one of c\.grant is expected"):
        decode(encode(Found("x")), Grant)


def test_nesting_is_bounded() -> None:
    deep: Any = 1
    for _ in range(DEPTH_MAX + 5):
        deep = [deep]
    presence = encode(Presence(PeerId("p"), "n", Role.AUTO, 1, 2, (), 1, 0, False, {"a": 1}, {}, (), ()))
    raw = cbor2.loads(presence)
    raw[10] = {"a": deep}
    with pytest.raises(RemoteProtocolError, match="wrong 'capabilities'"):
        decode(cbor2.dumps(raw), Presence)
    with pytest.raises(RemoteProtocolError):
        decode(b"\x81" * 100_000, Presence)


def test_what_follows_a_message_is_refused() -> None:
    for extra in (b"\x00", b"x" * 10_000, encode(Found("y"))):
        with pytest.raises(RemoteProtocolError, match=f"{len(extra)} bytes follow"):
            decode(encode(Found("x")) + extra, Found)


@given(st.binary(max_size=200))
def test_junk_gives_one_error(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(data, *MESSAGES)


SAMPLES = [
    encode(m)
    for m in (
        GRANT,
        Complete(LeaseId(1), Cid("c"), (TestIndex(1), TestIndex(2)), b"\0\1", (5, 6)),
        Manifest(
            Cid("b"),
            (CollectedTest("a.py::t", "a.py", 1),),
            (("", ""), ("gpu", "")),
            EnvironmentInfo("uv", "d1", "cpython", "3.12.1", "linux-x86_64", Cid("l")),
        ),
        Presence(PeerId("p"), "n", Role.AUTO, 1, 2, ("/ip4",), 1, 0, False, {"a": (1, {"z": None})}, {}, (), ()),
        GroupMessage(
            "m", AppendEntries(2, 3, 1, (Entry(4, 2, EntryKind.NORMAL, b"x"), Entry(5, 2, EntryKind(2), b"")), 3)
        ),
        GroupMessage(
            "m", InstallSnapshot(2, 9, 1, Configuration((PeerId("a"),), (), (PeerId("b"),)), 0, b"data", True)
        ),
    )
]


@settings(max_examples=examples(150))
@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_messages_give_one_error(sample: bytes, data: st.DataObject) -> None:
    damaged = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged)))
        damaged[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(RemoteProtocolError):
        decode(bytes(damaged), *MESSAGES)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, {1: 2}, {"a": object()}, {3.5}])
def test_our_own_mistakes_are_local(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode_value(value)


def test_a_tag_is_taken_once() -> None:
    with pytest.raises(LocalProtocolError, match=r"'c\.found'"):

        @codec.message("c.found")
        class Again:
            pass


def test_outcome_codes_are_the_contract() -> None:
    codes = [outcome.code for outcome in Outcome]
    assert codes == list(range(6))
    assert [Outcome.of_code(code) for code in codes] == list(Outcome)
    assert [outcome for outcome in Outcome if outcome.bad] == [Outcome.FAILED, Outcome.ERROR]


def test_a_field_that_came_later_costs_nothing_until_it_is_used() -> None:
    """The version before reads everything that says nothing new."""
    plain = Grant(RunId(1), PeerId("w"), 2, (TaskRange(0, 3),))
    assert len(cbor2.loads(encode(plain))) == 5
    used = Grant(RunId(1), PeerId("w"), 2, (), (Device("gpu0"),))
    assert len(cbor2.loads(encode(used))) == 6
    assert [decode(encode(grant), Grant) for grant in (plain, used)] == [plain, used]
