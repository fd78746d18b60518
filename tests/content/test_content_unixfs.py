"""UnixFS against golden CIDs, which Kubo 0.42.0 gave (`ipfs add --cid-version=1`), and its round trips. Files and trees
that Kubo is asked for anew are in tests/interop."""

import base64
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.content.unixfs import build
from mesh.content.unixfs.build import Built, FileBuilder, build_directory, build_symlink, build_tree
from mesh.content.unixfs.cid import cid_bytes, cid_from_bytes, cid_of, make_cid, parse_cid
from mesh.content.unixfs.hamt import murmur3, shard_entries
from mesh.content.unixfs.nodes import Block, Kind, child_links, decode_node
from mesh.content.unixfs.protobuf import read_varint, varint
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import Cid

LEAVES = [
    (1, "bafkreifnmtdiqbcvjqr4erubuvtkmgkdf6vbkuvxr53lxzit5lz3u3ro7y"),
    (2, "bafybeihgqo7too4x3fa2sugkfntcfis7cwx2cstfgd7ck7shqibrrvb6jy"),
    (173, "bafybeiafl3bypoqbotqtq53le5nb5iopmkr4giailpyeqnyo2fho66lcse"),
    (174, "bafybeic2r3uxcpvha6sueclahoixptnnp4254iudnhfhw5xu2g63ta3emm"),
    (175, "bafybeidjwwgnpgsvwx74hn5xw7c3qpnntja3aijqg7qcqnjo2zshogdgzm"),
    (349, "bafybeieh25zca4scc4tr7emoh54kht7xt6fku2xzc32b67rygn76k5vdpa"),
    (30276, "bafybeiglpkm2gaxqjaxz6e7gzy6kdatnigjiznmrp6cnvxpvcngtvmnrlm"),
    (30277, "bafybeiagbl7n432q65fhmyp27nw67rmhrsv66bbt2gkmh7gr4l5myjyqwu"),
    (30625, "bafybeidd7dxfcse2acbgcrobfprzhtgnuzwmvfw6zpvsquwz3ful6gdkxq"),
]
"""Chunks of 64 bytes of `pattern` (`--chunker=size-64`): the shape of files up to 7.9 GB at the real chunk size."""

DIRECTORIES = [
    (3854, "bafybeidlt63pekz7ornajipmuuflzklfexcwc4du2mxgmhaqxje4m5acqa"),
    (3855, "bafybeic5eo6362rktubyolftwgtphcxdpy2xgi5asm4k7vrw6z3zpg6lai"),
    (3856, "bafybeiagnzlplbtlufk7e7wcb54vrr3ldqh4q3rig6v62fmoxvuioymwey"),
    (5000, "bafybeierwc3j6phfrqiehefkojm47somn4hugrp2ujyb3gijba55k4luze"),
]
"""Entries of 32-character names; the third is the first that is sharded."""

TREE = "bafybeieuxd5zxgngn6bghfgatipkfzgpqsgfn5d7dmjn3rzm5odu7epg2q"


def pattern(size: int) -> bytes:
    period = 262144 + 1
    return (random.Random(7).randbytes(period) * (size // period + 1))[:size]


def build_file(data: bytes, executable: bool = False, step: int = 1_000_000) -> tuple[list[Block], Built]:
    builder = FileBuilder(executable)
    blocks = []
    for at in range(0, len(data), step):
        blocks += builder.feed(data[at : at + step])
    last, built = builder.finish()
    return blocks + last, built


@pytest.mark.parametrize(("leaves", "cid"), LEAVES)
def test_deep_files_have_kubos_cids(leaves: int, cid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CHUNK_BYTES", 64)
    assert build_file(pattern(leaves * 64))[1].cid == cid


@pytest.mark.parametrize(("count", "cid"), DIRECTORIES)
def test_directories_have_kubos_cids(count: int, cid: str) -> None:
    entries = {f"n{i:031d}": build_file(b"x%d" % (i % 10))[1] for i in reversed(range(count))}
    blocks, built = build_directory(entries)
    assert built.cid == cid == blocks[-1].cid
    assert (len(blocks) > 1) == (count >= 3856)


def test_a_tree_has_kubos_cid() -> None:
    contents = {"b/c/deep": b"deep", "a.d/x": b"x", "a": b"a", "Z": b"z", "ä": b"umlaut", "b/1": b"1"}
    files = {name: build_file(data)[1] for name, data in contents.items()}
    files["link"] = build_symlink("b/c/deep")[1]
    blocks, built = build_tree(files, ("empty",))
    assert built.cid == TREE == blocks[-1].cid


@pytest.mark.parametrize("size", [0, 5, 262144, 262145, 175 * 262144])
def test_only_executables_have_a_mode(size: int) -> None:
    blocks, built = build_file(pattern(size), executable=True)
    node = decode_node(built.cid, blocks[-1].data)
    assert node.executable
    assert node.size == built.size == size
    assert built.cid == blocks[-1].cid
    assert built.tsize == sum(block_sizes(built.cid, {block.cid: block.data for block in blocks}))


def block_sizes(cid: Cid, blocks: dict[Cid, bytes]) -> list[int]:
    """Of every block under `cid`, each occurrence counted."""
    inside = [size for link in child_links(cid, blocks[cid]) for size in block_sizes(link.cid, blocks)]
    return [len(blocks[cid]), *inside]


def content_of(cid: Cid, blocks: dict[Cid, bytes]) -> bytes:
    node = decode_node(cid, blocks[cid])
    return node.data + b"".join(content_of(link.cid, blocks) for link in node.links)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3000), st.integers(1, 500), st.booleans())
def test_any_file_round_trips_however_it_is_cut(size: int, step: int, executable: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "CHUNK_BYTES", 7)
        patch.setattr(build, "LINKS_PER_NODE_MAX", 3)
        blocks, built = build_file(pattern(size), executable, step)
        by_cid = {block.cid: block.data for block in blocks}
        assert content_of(built.cid, by_cid) == pattern(size)
        assert decode_node(built.cid, by_cid[built.cid]).size == size
        assert built == build_file(pattern(size), executable, 1_000_000)[1]


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@settings(deadline=None, max_examples=40)
@given(st.lists(names, unique=True, max_size=60))
def test_sharded_directories_keep_all_their_names(entries: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SHARD_BYTES", 0)
        blocks, built = build_directory({name: Built(cid_of(name.encode()), 1) for name in entries})
        by_cid = {block.cid: block.data for block in blocks}
        found = {}
        todo = [built.cid]
        while todo:
            node = decode_node(todo[-1], by_cid[todo.pop()])
            assert node.kind is Kind.SHARD
            inside, shards = shard_entries(node)
            found.update({link.name: link.cid for link in inside})
            todo += [link.cid for link in shards]
        assert found == {name: cid_of(name.encode()) for name in entries}


@given(st.binary(max_size=300))
def test_junk_gives_one_kind_of_error(junk: bytes) -> None:
    for codec in (0x55, 0x70, 0x71):
        cid = cid_of(junk, codec)
        for read in (decode_node, child_links):
            try:
                read(cid, junk)
            except RemoteProtocolError:
                continue


@given(st.binary(max_size=80))
def test_any_bytes_are_a_cid_or_an_error(junk: bytes) -> None:
    try:
        cid = cid_from_bytes(junk)
    except RemoteProtocolError:
        return
    assert parse_cid(cid) == parse_cid(make_cid(*parse_cid(cid)))


@given(st.integers(0, 2**63))
def test_varints_round_trip(value: int) -> None:
    assert read_varint(varint(value) + b"x", 0) == (value, len(varint(value)))


def test_cids_of_other_kinds() -> None:
    old = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
    codec, multihash = parse_cid(old)
    assert make_cid(codec, multihash) == "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    assert cid_from_bytes(multihash) == make_cid(codec, multihash)
    assert cid_bytes(make_cid(codec, multihash)) == b"\x01\x70" + multihash
    for wrong in (
        "",
        "bafy",
        "zabc",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyk",
        "Qm" + "0" * 44,
        "b\xe4",
    ):
        with pytest.raises(RemoteProtocolError):
            parse_cid(wrong)


def test_murmur3_of_known_strings() -> None:
    """First halves of MurmurHash3 x64 128, by Appleby's reference."""
    assert murmur3(b"") == bytes(8)
    assert murmur3(b"hello").hex() == "cbd8a7b341bd9b02"
    assert murmur3(b"hello, world").hex() == "342fac623a5ebc8e"
    assert murmur3(b"The quick brown fox jumps over the lazy dog.").hex() == "cd99481f9ee902c9"


def test_what_can_be_no_tree_is_refused() -> None:
    file = build_file(b"x")[1]
    for wrong in ({"a": file, "a/b": file}, {"../a": file}, {"a/../b": file}, {"": file}, {"x" * 256: file}):
        with pytest.raises(UsageError):
            build_tree(wrong)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([0x55, 0x70, 0x71]))
def test_cids_are_base32_as_the_standard_library_has_it(digest: bytes, codec: int) -> None:
    binary = bytes((1, codec, 0x12, 0x20)) + digest
    cid = make_cid(codec, binary[2:])
    assert cid == "b" + base64.b32encode(binary).decode().rstrip("=").lower()
    assert cid_bytes(cid) == binary
    assert parse_cid(cid.upper().replace("B", "b", 1)) == (codec, binary[2:])
