"""Ranges of files and names in directories, against what was built."""

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.content.unixfs import build
from mesh.content.unixfs.build import Built, build_directory
from mesh.content.unixfs.cid import cid_of
from mesh.content.walking import dag_blocks, file_bytes, resolve
from protocols.errors import UsageError
from protocols.ids import Cid
from tests.content.test_content_unixfs import build_file, names, pattern


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 400), st.integers(0, 500), st.integers(0, 500), st.booleans())
def test_any_range_of_a_file_and_no_block_beside_it(size: int, start: int, stop: int, executable: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "CHUNK_BYTES", 7)
        patch.setattr(build, "LINKS_PER_NODE_MAX", 3)
        blocks, built = build_file(pattern(size), executable)
    kept = {block.cid: block.data for block in blocks}
    loaded: list[Cid] = []

    async def load(cids: Sequence[Cid]) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        loaded.extend(cids)
        return [kept[cid] for cid in cids]

    async def read() -> tuple[bytes, int]:
        found = b"".join([data async for data in file_bytes(load, built.cid, start, stop)])
        leaves = len(loaded)
        loaded.clear()
        blocks_in_order = [block.cid async for block in dag_blocks(load, [built.cid])]
        assert blocks_in_order[0] == built.cid
        assert set(blocks_in_order) == set(kept)
        return found, leaves

    found, count = trio.run(read)
    assert found == pattern(size)[start:stop]
    depth = 6
    assert count <= depth + (max(0, min(stop, size) - start) // 7 + 2) * 2


@settings(deadline=None, max_examples=40)
@given(st.lists(names, unique=True, min_size=1, max_size=60), names)
def test_a_name_is_found_where_it_was_put(entries: list[str], other: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SHARD_BYTES", 0)
        blocks, built = build_directory({name: Built(cid_of(name.encode()), 1) for name in entries})
    kept = {block.cid: block.data for block in blocks}

    async def load(cids: Sequence[Cid]) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        return [kept[cid] for cid in cids]

    for name in entries:
        way = trio.run(resolve, load, built.cid, name)
        assert (way[0], way[-1]) == (built.cid, cid_of(name.encode()))
    if other not in entries:
        with pytest.raises(UsageError, match="there is no"):
            trio.run(resolve, load, built.cid, other)
