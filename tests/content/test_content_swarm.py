"""Many nodes that fetch the same thing at once give to one another, and do not all pull from the one who had it."""

import random
from collections import Counter
from collections.abc import Iterable

import pytest
import trio
import trio.testing

from mesh.content.bitswap.exchange import STALL_SECONDS
from mesh.content.bitswap.wants import Standing, Want, choose, deputy_of
from mesh.content.unixfs.build import FileBuilder, build_tree
from mesh.content.unixfs.cid import cid_of
from mesh.content.unixfs.nodes import Block
from protocols.ids import Cid, PeerId
from tests.content.content_nodes import random_bytes
from tests.content.swarm_rig import swarm

FETCHERS = 10
BYTES_PER_SECOND = 12_500_000
"""Of each uplink: 100 Mbit/s."""

LATENCY = 0.001


def bundle(files: int, file_bytes: int) -> tuple[Cid, list[Block]]:
    """A directory of ten directories; its root and all blocks."""
    built, blocks = {}, []
    for number in range(files):
        builder = FileBuilder()
        some = builder.feed(random_bytes(file_bytes, number))
        rest, built[f"d{number % 10}/f{number}"] = builder.finish()
        blocks += [*some, *rest]
    tree, root = build_tree(built)
    return root.cid, [*blocks, *tree]


@pytest.mark.parametrize(("files", "file_bytes"), [(12, 1_000_000), (240, 4_000)])
async def test_ten_that_start_together_do_not_all_pull_from_the_submitter(
    autojump_clock: trio.testing.MockClock, files: int, file_bytes: int
) -> None:
    """Each is told of those whose leases were granted before its own, and meets the others as they ask it."""
    root, blocks = bundle(files, file_bytes)
    size = sum(len(block.data) for block in blocks)
    async with swarm(1 + FETCHERS, BYTES_PER_SECOND, LATENCY) as (submitter, *fetchers):
        await submitter.repository.put_many(blocks)
        everybody = [node.name for node in (submitter, *fetchers)]
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number, one in enumerate(fetchers, 1):
                nursery.start_soon(one.fetch, root, everybody[:number])
        seconds = trio.current_time() - began
    assert all(one.repository.blocks == submitter.repository.blocks for one in fetchers)
    assert submitter.sent < 2 * size
    assert sum(node.sent for node in (submitter, *fetchers)) < 1.1 * FETCHERS * size, "hardly a block goes twice"
    assert max(one.sent for one in fetchers) < 4 * size, "a few dozen blocks fall to deputies unevenly"
    assert seconds < 3 * size / BYTES_PER_SECOND, "one uplink alone would take ten times the bundle"


@pytest.mark.parametrize("fault", ["stops", "crawls"])
async def test_a_fellow_that_fails_holds_up_nobody_for_long(autojump_clock: trio.testing.MockClock, fault: str) -> None:
    """One of ten says that it fetches the same, and then says no more, or has a hundredth of the others' uplink."""
    root, blocks = bundle(12, 1_000_000)
    size = sum(len(block.data) for block in blocks)
    async with swarm(1 + FETCHERS, BYTES_PER_SECOND, LATENCY) as (submitter, *fetchers):
        await submitter.repository.put_many(blocks)
        everybody = [node.name for node in (submitter, *fetchers)]
        began = trio.current_time()
        failing = fetchers.pop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing.fetch, root, everybody[:-1])
            async with trio.open_nursery() as others:
                for one in fetchers:
                    others.start_soon(one.fetch, root, [peer for peer in everybody if peer != one.name])
                await trio.sleep(0.2)
                failing.host.slowness = 1e9 if fault == "stops" else 100
            seconds = trio.current_time() - began
            nursery.cancel_scope.cancel()
    assert all(one.repository.blocks == submitter.repository.blocks for one in fetchers)
    assert submitter.sent < 3 * size
    assert seconds < 2 * STALL_SECONDS + 3 * size / BYTES_PER_SECOND


# Whom to ask

A, B, C, D = (PeerId(name) for name in "ABCD")
WANTED = cid_of(b"wanted")


def want(haves: Iterable[PeerId] = ()) -> Want:
    made = Want(WANTED)
    made.haves = set(haves)
    return made


def standing(peer: PeerId, fellow: bool = False, burden: int = 0, slow: bool = False) -> Standing:
    return Standing(peer, fellow, slow, burden)


def chosen(made: Want, *standings: Standing, me: PeerId = A) -> set[PeerId]:
    """All that may come of it, whatever the dice say."""
    choices = (choose(me, made, standings, random.Random(seed)) for seed in range(50))
    return {one.peer for one in choices if one is not None}


def test_who_says_that_it_has_the_block_comes_first() -> None:
    assert chosen(want([B]), standing(C), standing(B, burden=9), standing(D, fellow=True)) == {B}


def test_the_deputy_asks_whoever_has_everything_and_the_others_ask_the_deputy() -> None:
    deputy = deputy_of(want().key, [B, C, D])
    for me in (B, C, D):
        fellows = [standing(peer, fellow=True, burden=5) for peer in (B, C, D) if peer != me]
        assert chosen(want(), standing(A), *fellows, me=me) == {A if me == deputy else deputy}


def test_a_deputy_that_is_slow_has_a_deputy() -> None:
    first = deputy_of(want().key, [B, C, D])
    second = deputy_of(want().key, {B, C, D} - {first})
    for me in {B, C, D} - {first}:
        fellows = [standing(peer, fellow=True, slow=peer == first) for peer in (B, C, D) if peer != me]
        assert chosen(want(), standing(A), *fellows, me=me) == {A if me == second else second}


def test_deputies_share_the_blocks() -> None:
    counts = Counter(deputy_of(Want(cid_of(b"%d" % number)).key, [A, B, C, D]) for number in range(1000))
    assert all(200 < counts[peer] < 300 for peer in (A, B, C, D))


def test_the_least_burdened_of_those_that_have_everything() -> None:
    assert chosen(want(), standing(D, burden=2), standing(B, burden=1), standing(C, burden=1)) == {B, C}


def test_fellows_alone_are_asked_whoever_the_deputy_is() -> None:
    assert chosen(want(), standing(B, fellow=True)) == {B}


def test_slow_peers_come_last() -> None:
    assert chosen(want([D]), standing(D, slow=True), standing(B, burden=99)) == {B}
    assert chosen(want([D]), standing(D, slow=True), standing(C, slow=True, burden=1)) == {D}
    assert chosen(want()) == set()
