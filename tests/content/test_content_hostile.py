"""Trees and messages from a peer that means harm, or from one that is broken."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.content.bitswap.wire import MESSAGE_BYTES_MAX, Decoder, Entry, decode, encode
from mesh.content.links import leaving
from mesh.content.store import EmbeddedContent, open_content
from mesh.content.unixfs.build import build_symlink, build_tree
from mesh.content.unixfs.cid import DAG_PB, cid_bytes, cid_of, multihash_of
from mesh.content.unixfs.nodes import Block, Kind, Link, Node, encode_dag_pb, encode_node
from mesh.content.unixfs.protobuf import number, varint
from protocols.errors import ContentNotFound, MeshError, RemoteProtocolError, StorageError, UsageError
from protocols.ids import Cid

FILE = b"content"


async def store(content: EmbeddedContent, *blocks: Block) -> None:
    await content.put(FILE)
    for block in blocks:
        assert await content.put(block.data, "dag-pb") == block.cid


def directory(*links: tuple[str, Cid]) -> Block:
    return encode_node(Node(Kind.DIRECTORY, links=tuple(Link(name, cid, 7) for name, cid in links)))


async def absent_after(content: EmbeddedContent, root: Cid, base: Path, error: type[MeshError], match: str) -> None:
    """A checkout that fails, and leaves nothing behind."""
    before = sorted(base.rglob("*"))
    with pytest.raises(error, match=match):
        await content.checkout(root, base / "out")
    assert sorted(base.rglob("*")) == before


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc/x", "../x", "nul\0", "x" * 256])
async def test_entries_with_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    async with open_content(tmp_path / "home") as content:
        block = directory(("fine", cid_of(FILE)), (name, cid_of(FILE)))
        await store(content, block)
        (tmp_path / "work").mkdir()
        await absent_after(content, block.cid, tmp_path / "work", RemoteProtocolError, "unsafe or there twice")


async def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """A link and a directory of one name would write through the link."""
    async with open_content(tmp_path / "home") as content:
        link = encode_node(Node(Kind.SYMLINK, b"fine"))
        inside = directory(("x", cid_of(FILE)))
        block = directory(("a", link.cid), ("a", inside.cid), ("fine", cid_of(FILE)))
        await store(content, link, inside, block)
        (tmp_path / "work").mkdir()
        await absent_after(content, block.cid, tmp_path / "work", RemoteProtocolError, "there twice")


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../outside", b"x/../../outside", b".."])
async def test_links_that_leave_are_not_written(tmp_path: Path, target: bytes) -> None:
    async with open_content(tmp_path / "home") as content:
        link = encode_node(Node(Kind.SYMLINK, target))
        block = directory(("link", link.cid))
        await store(content, link, block)
        (tmp_path / "work").mkdir()
        await absent_after(content, block.cid, tmp_path / "work", RemoteProtocolError, "outside of its tree")


def tree_of_links(links: dict[str, str]) -> tuple[list[Block], Cid]:
    """The blocks of a tree of links, and its root."""
    made = {name: build_symlink(target) for name, target in links.items()}
    blocks, root = build_tree({name: built for name, (_, built) in made.items()})
    return [*(block for block, _ in made.values()), *blocks], root.cid


@pytest.mark.parametrize(
    "links",
    [
        {"a/b/c/top": "../../..", "x": "a/b/c/top/../../.."},
        {"a/b/c/top": "../../..", "a/x": "b/c/top/.."},
        {"d/up": "..", "x": "d/up/../etc/passwd"},
        {"d/up": "..", "d/e/y": "../up", "d/e/x": "y/.."},
    ],
)
async def test_links_that_leave_through_another_are_not_written(tmp_path: Path, links: dict[str, str]) -> None:
    async with open_content(tmp_path / "home") as content:
        blocks, root = tree_of_links(links)
        await store(content, *blocks)
        (tmp_path / "work").mkdir()
        await absent_after(content, root, tmp_path / "work", RemoteProtocolError, "leads outside of its tree")


def test_links_that_stay_are_told_from_those_that_leave() -> None:
    assert leaving({"x": "y", "y": "x", "z": "z", "d/up": "..", "w": "d/up/d/up/d", "v": "d/../d/up/no/such"}) is None
    assert leaving({"x": "../x"}) == "x"
    assert leaving({"a": "b", "b": "c/..", "c": "/"}) is not None
    chain = {f"l{number}": f"l{number + 1}" for number in range(5000)}
    assert leaving(chain) is None, "a kernel gives up before its end"
    with pytest.raises(RemoteProtocolError, match="too tangled"):
        leaving({f"l{number}": f"l{number - 1}/" * 2000 for number in range(5000)})


async def test_a_bomb_of_links_is_refused(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        blocks, root = tree_of_links({f"l{number}": f"l{number + 1}/" * 600 for number in range(300)})
        await content._repository.put_many(blocks)
        (tmp_path / "work").mkdir()
        await absent_after(content, root, tmp_path / "work", RemoteProtocolError, "too tangled")


async def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        level = directory(("f", cid_of(FILE)))
        blocks = [level]
        for _ in range(1200):
            level = directory(("a", level.cid))
            blocks.append(level)
        await content.put(FILE)
        await content._repository.put_many(blocks)
        (tmp_path / "work").mkdir()
        await absent_after(content, level.cid, tmp_path / "work", RemoteProtocolError, "over 256 directories deep")


def bomb(leaf: Block, leaf_size: int, levels: int) -> list[Block]:
    """A file that a few blocks make endless, its root the last."""
    blocks, below, size = [leaf], leaf, leaf_size
    for _ in range(levels):
        links = (Link("", below.cid, 1),) * 174
        below = encode_node(Node(Kind.FILE, b"", links, size * 174, (size,) * 174))
        size *= 174
        blocks.append(below)
    return blocks


async def test_a_file_that_no_disk_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.content.checkout.TREE_BYTES_MAX", 20_000_000)
    async with open_content(tmp_path / "home") as content:
        data = bytes(100_000)
        blocks = bomb(Block(cid_of(data), data), len(data), 5)
        await content._repository.put_many(blocks)
        (tmp_path / "work").mkdir()
        await absent_after(content, blocks[-1].cid, tmp_path / "work", StorageError, "more than 20000000 bytes")


async def test_a_file_of_nothing_without_end_is_empty(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        blocks = bomb(Block(cid_of(b""), b""), 0, 8)
        await content._repository.put_many(blocks)
        await content.checkout(blocks[-1].cid, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b""


async def test_shards_without_end_are_refused(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        below = encode_node(Node(Kind.SHARD, b"", (), fanout=256, hash_type=0x22))
        blocks = [below]
        for _ in range(8):
            links = tuple(Link(f"{slot:02X}", below.cid, 1) for slot in range(256))
            below = encode_node(Node(Kind.SHARD, b"\xff" * 32, links, fanout=256, hash_type=0x22))
            blocks.append(below)
        await content._repository.put_many(blocks)
        (tmp_path / "work").mkdir()
        await absent_after(content, below.cid, tmp_path / "work", RemoteProtocolError, "there twice")


async def test_a_checkout_that_lacks_a_block_leaves_nothing(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        missing = cid_of(b"missing")
        block = directory(*((f"f{i}", cid_of(FILE)) for i in range(300)), ("z", missing))
        await store(content, block)
        (tmp_path / "work").mkdir()
        await absent_after(content, block.cid, tmp_path / "work", ContentNotFound, missing)


async def test_a_tree_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.content.checkout.ENTRIES_MAX", 300)
    async with open_content(tmp_path / "home") as content:
        level = directory(("f", cid_of(FILE)))
        blocks = [level]
        for _ in range(40):
            level = directory(("a", level.cid), ("b", level.cid))
            blocks.append(level)
        await store(content, *blocks)
        (tmp_path / "work").mkdir()
        await absent_after(content, level.cid, tmp_path / "work", RemoteProtocolError, "over 300 entries")
        await content.fetch(level.cid)
        assert await content.has(level.cid), "a walk goes to each block once"


async def test_a_file_that_looks_like_a_node_stays_a_file(tmp_path: Path) -> None:
    looks = directory(("x", cid_of(FILE))).data
    async with open_content(tmp_path / "home") as content:
        root = await content.add_files({"looks": looks})
        await content.checkout(root, tmp_path / "out")
        assert (tmp_path / "out" / "looks").read_bytes() == looks


async def test_paths_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        root = await content.add_files({"dir/file": FILE})
        for path, match in (
            ("dir/no", "there is no 'no'"),
            ("dir/file/x", "no directory, before 'x'"),
            ("dir", "not a file"),
        ):
            with pytest.raises(UsageError, match=match):
                [data async for data in content.read(root, path)]


async def test_a_shard_that_holds_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        shard = Node(Kind.SHARD, b"\x01", (Link("00", cid_of(FILE), 7),), fanout=256, hash_type=0x22)
        block = encode_node(shard)
        await store(content, block)
        (tmp_path / "work").mkdir()
        await absent_after(content, block.cid, tmp_path / "work", RemoteProtocolError, "is no shard")


async def test_a_block_without_a_unixfs_type_is_refused(tmp_path: Path) -> None:
    data = encode_dag_pb((), number(3, 5))
    async with open_content(tmp_path / "home") as content:
        await store(content, Block(cid_of(data, DAG_PB), data))
        (tmp_path / "work").mkdir()
        await absent_after(
            content, cid_of(data, DAG_PB), tmp_path / "work", RemoteProtocolError, "without a UnixFS type"
        )


entries = st.builds(
    Entry,
    st.binary(max_size=20).map(lambda data: cid_bytes(cid_of(data))),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31 - 1),
)


@given(st.lists(entries, max_size=5), st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 40))
def test_messages_round_trip_however_they_are_cut(wants: list[Entry], datas: list[bytes], step: int) -> None:
    cids = [cid_bytes(cid_of(data)) for data in datas]
    frame = encode(wants, [(cid_of(data), data) for data in datas], cids, cids[:1])
    decoder = Decoder()
    got = []
    wire = frame * 2
    for at in range(0, len(wire), step):
        got += decoder.feed(wire[at : at + step])
    assert len(got) == 2
    assert got[0] == got[1]
    assert got[0].entries == tuple(wants)
    assert got[0].blocks == tuple((multihash_of(data), data) for data in datas)
    assert got[0].haves == tuple(cid[-34:] for cid in cids)
    assert got[0].missing == tuple(cid[-34:] for cid in cids[:1])


@given(st.binary(max_size=200))
def test_junk_messages_give_one_kind_of_error(junk: bytes) -> None:
    for read in (decode, Decoder().feed):
        try:
            read(junk)
        except RemoteProtocolError:
            continue


def test_a_damaged_message_is_one_kind_of_error() -> None:
    cid = cid_of(FILE)
    frame = encode([Entry(cid_bytes(cid))], [(cid, FILE)], [cid_bytes(cid)], [])
    rng = random.Random(4)
    for _ in range(2000):
        damaged = bytearray(frame)
        damaged[rng.randrange(len(frame))] = rng.randrange(256)
        try:
            Decoder().feed(bytes(damaged))
        except RemoteProtocolError:
            continue


def test_a_message_that_promises_too_much_is_refused_at_once() -> None:
    with pytest.raises(RemoteProtocolError, match="over"):
        Decoder().feed(varint(MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "head",
    [b"\x01" + varint(0x0129), b"\x02" + varint(0x55), b"\x01", varint(1 << 60), b"\xff" * 4, b"\x00" * 100],
)
def test_a_want_for_what_no_store_of_ours_holds_takes_no_other_with_it(head: bytes) -> None:
    """A Kubo asks for whatever its users ask for, such as dag-json, 0x0129."""
    key = multihash_of(FILE)
    good = [Entry(cid_bytes(cid_of(FILE))), Entry(key)]
    (message,) = Decoder().feed(encode([good[0], Entry(head + key), good[1]], [], [], []))
    assert message.entries == tuple(good)
