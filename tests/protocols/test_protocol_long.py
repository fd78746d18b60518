"""A long message is decoded as any other is: to the same value, or to the same refusal."""

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codec import decode, encode
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid
from protocols.long import ITEMS_PER_STEP, LongDecoding
from protocols.manifests import CollectedTest, Manifest
from tests.properties import examples

TESTS = st.builds(
    CollectedTest, st.text(max_size=4), st.sampled_from(["", "a.py", "b.py"]), st.integers(0, 3), st.just(0.5)
)
MANIFESTS = st.builds(
    Manifest, st.just(Cid("bafk")), st.lists(TESTS, max_size=40).map(tuple), notes=st.binary(max_size=3)
)


def decoded(data: bytes) -> Manifest:
    decoding = LongDecoding(data, Manifest, "tests")
    for _ in decoding:
        pass
    return decoding.message


def outcome(data: bytes, long: bool) -> Manifest | str:
    try:
        return decoded(data) if long else decode(data, Manifest)
    except RemoteProtocolError as error:
        return str(error)


@given(MANIFESTS)
@settings(max_examples=examples(50))
def test_it_is_the_same_message(manifest: Manifest) -> None:
    assert decoded(encode(manifest)) == manifest


@given(MANIFESTS, st.data())
@settings(max_examples=examples(300))
def test_what_is_damaged_is_refused_in_the_same_words(manifest: Manifest, data: st.DataObject) -> None:
    damaged = bytearray(encode(manifest))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from("xci")):
            case "x":
                damaged[place] = data.draw(st.integers(0, 255))
            case "c" if len(damaged) > 1:
                del damaged[place:]
                break
            case _:
                damaged.insert(place, data.draw(st.integers(0, 255)))
    assert outcome(bytes(damaged), long=True) == outcome(bytes(damaged), long=False)


@given(st.binary(max_size=20))
@settings(max_examples=examples(200))
def test_junk_is_refused(junk: bytes) -> None:
    assert outcome(junk, long=True) == outcome(junk, long=False)


def test_items_of_another_message_are_refused() -> None:
    manifest = Manifest(Cid("bafk"), (CollectedTest("t", "a.py"),))
    other = encode(Manifest(Cid("bafk"), ())).replace(b"\x80", b"\x81" + encode(manifest), 1)
    assert outcome(other, long=True) == outcome(other, long=False)


def test_text_that_repeats_itself_is_kept_once() -> None:
    manifest = Manifest(Cid("bafk"), tuple(CollectedTest(f"t{n}", "tests/test_a.py") for n in range(9)))
    made = decoded(encode(manifest))
    assert len({id(test.scope) for test in made.tests}) == 1


def test_others_have_their_turn_meanwhile() -> None:
    manifest = Manifest(Cid("bafk"), tuple(CollectedTest(f"t{n}", "a.py") for n in range(2 * ITEMS_PER_STEP)))
    assert sum(1 for _ in LongDecoding(encode(manifest), Manifest, "tests")) == 2
