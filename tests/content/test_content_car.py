"""CAR files: the format, junk, and archives of trees that one store writes and another reads."""

from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.content.store import open_content
from mesh.content.unixfs.car import CarReader, car_header, car_section
from mesh.content.unixfs.cid import DAG_CBOR, DAG_PB, RAW, cid_bytes, cid_of, multihash_of
from mesh.content.unixfs.nodes import BLOCK_BYTES_MAX, Block
from mesh.content.unixfs.protobuf import varint
from protocols.errors import ContentNotFound, RemoteProtocolError, UsageError
from tests.content.test_content_store import make_tree, tree_of

BLOCKS = [Block(cid_of(data, codec), data) for codec, data in ((RAW, b"one"), (DAG_PB, b"\n\0"), (DAG_CBOR, b"\xa0"))]
ROOTS = [BLOCKS[2].cid]
WHOLE = car_header(ROOTS) + b"".join(map(car_section, BLOCKS))


def read(file: bytes, step: int = 10**9) -> list[Block]:
    reader = CarReader()
    blocks = [block for at in range(0, len(file), step) for block in reader.feed(file[at : at + step])]
    reader.finish()
    return blocks


@given(
    st.lists(st.tuples(st.sampled_from([RAW, DAG_PB, DAG_CBOR]), st.binary(max_size=300)), max_size=9),
    st.integers(1, 400),
)
def test_blocks_come_back_however_the_file_is_cut(parts: list[tuple[int, bytes]], step: int) -> None:
    blocks = [Block(cid_of(data, codec), data) for codec, data in parts]
    assert read(car_header(ROOTS) + b"".join(map(car_section, blocks)), step) == blocks


def test_the_bytes_are_those_of_the_specification() -> None:
    """A header as go-car writes it: the map's keys in canonical order, the root under tag 42."""
    header = car_header(ROOTS)
    assert header[0] == len(header) - 1
    assert header[1:].startswith(b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00\x01\x71\x12\x20")
    assert header.endswith(b"\x67version\x01")


def test_a_version_0_cid_is_taken_as_version_1() -> None:
    bare = multihash_of(b"\n\0")
    file = car_header(ROOTS) + varint(len(bare) + 2) + bare + b"\n\0"
    assert read(file) == [Block(cid_of(b"\n\0", DAG_PB), b"\n\0")]


HEADER = car_header(ROOTS)
ELSE = cid_bytes(cid_of(b"something else"))


def header_of(document: object) -> bytes:
    body = cbor2.dumps(document)
    return varint(len(body)) + body


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"", "ends before its header"),
        (HEADER[:20], "ends before its header"),
        (b"PK\x03\x04 a zip archive, as it happens, and long enough to be read" * 2, "CAR file's header"),
        (b"<html>" * 200, "CAR file's header"),
        (b"\xff" * 20, "over 64 bits"),
        (varint(2**40), "would have 1099511627776 bytes"),
        (b"\0", "its header would have 0 bytes"),
        (b"\x0a\xa1\x67version\x02" + bytes(40), "version 2"),
        (header_of({"version": 1}), "does not name 1 to 1024 roots"),
        (header_of({"version": 1, "roots": []}), "does not name 1 to 1024 roots"),
        (header_of({"version": 1, "roots": [b"x"]}), "a root that is no CID"),
        (header_of([1, 2]), "CAR file's header"),
        (WHOLE[:-1], "cut off in the block at byte"),
        (WHOLE + b"\0", "would have 0 bytes"),
        (HEADER + varint(BLOCK_BYTES_MAX + 1000), "would have 2098152 bytes"),
        (HEADER + varint(len(ELSE) + 3) + ELSE + b"one", "is not what its CID"),
        (HEADER + varint(9) + b"\x01\x55\x12\x20short", "a CID that is not understood"),
        (HEADER + varint(72) + b"\x01\x55\x13\x40" + bytes(68), "its hash is not sha2-256"),
        (HEADER + varint(9) + b"\x02" * 9, "a CID that is not understood"),
    ],
)  # fmt: skip
def test_junk_is_named(file: bytes, sentence: str) -> None:
    with pytest.raises(RemoteProtocolError, match=sentence):
        read(file)
    with pytest.raises(RemoteProtocolError, match=sentence):
        read(file, 7)


@given(st.binary(max_size=200), st.integers(0, len(WHOLE)))
def test_junk_gives_one_kind_of_error(junk: bytes, at: int) -> None:
    for file in (junk, WHOLE[:at] + junk, WHOLE[:at] + junk + WHOLE[at + len(junk) :]):
        try:
            read(file)
        except RemoteProtocolError:
            continue


async def test_a_tree_goes_through_an_archive(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "tree" / "twice").write_bytes(b"print(1)\n")
    async with open_content(tmp_path / "home") as content:
        root = await content.add_path(tmp_path / "tree")
        made = await content.export_archive(root, tmp_path / "tree.car")
        with pytest.raises(UsageError, match=r"tree\.car exists already"):
            await content.export_archive(root, tmp_path / "tree.car")
        pieces = content.archive(await content.look(root))
        assert b"".join([piece async for piece in pieces]) == (tmp_path / "tree.car").read_bytes()
    assert made.roots == (root,)
    blocks = read((tmp_path / "tree.car").read_bytes())
    assert len({block.cid for block in blocks}) == len(blocks) == made.blocks
    assert blocks[0].cid == root
    async with open_content(tmp_path / "other") as content:
        assert await content.import_archive(tmp_path / "tree.car") == made
        assert await content.has(root)
        await content.checkout(root, tmp_path / "copy")
    assert tree_of(tmp_path / "copy") == tree_of(tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "home", "other", "tree", "tree.car"]


async def test_an_archive_of_what_is_not_here_is_not_begun(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        with pytest.raises(ContentNotFound):
            await content.export_archive(cid_of(b"absent"), tmp_path / "x.car")
        root = await content.put(b"x")
        with pytest.raises(Exception, match="can't be written: No such file"):
            await content.export_archive(root, tmp_path / "nowhere" / "x.car")
    assert not list(tmp_path.glob("*.car*"))


async def test_a_damaged_archive_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.car").write_bytes(WHOLE[:-1] + b"!")
    async with open_content(tmp_path / "home") as content:
        with pytest.raises(UsageError, match=r"x\.car is no CAR file that can be imported: the block at byte \d+"):
            await content.import_archive(tmp_path / "x.car")
        with pytest.raises(UsageError, match=r"absent\.car can't be read: No such file"):
            await content.import_archive(tmp_path / "absent.car")
        with pytest.raises(UsageError, match=r"can't be read: Is a directory"):
            await content.import_archive(tmp_path)
