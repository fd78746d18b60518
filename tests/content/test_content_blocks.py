"""The block store: durability, damage, quota and collection."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from mesh.content.blocks import GRACE_SECONDS, BlockStore
from mesh.content.local import open_local
from mesh.content.unixfs.build import Built, FileBuilder, build_tree
from mesh.content.unixfs.cid import cid_of
from mesh.content.unixfs.nodes import Block
from mesh.ports import PinOwner
from protocols.errors import LocalProtocolError, StorageError
from protocols.ids import NO_RUN, Cid

LARGE = 40_000
QUOTA = 10**9


def block(seed: int, size: int = LARGE) -> Block:
    data = random.Random(seed).randbytes(size)
    return Block(cid_of(data), data)


def tree(count: int, seed: int) -> tuple[list[Block], Cid]:
    """A directory of `count` files of LARGE bytes."""
    blocks = []
    files: dict[str, Built] = {}
    for number in range(count):
        builder = FileBuilder()
        blocks += builder.feed(block(seed * 1000 + number).data)
        made, files[f"f{number}"] = builder.finish()
        blocks += made
    made, root = build_tree(files)
    return blocks + made, root.cid


class Time:
    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def pass_grace(self) -> None:
        self.seconds += GRACE_SECONDS + 1


@pytest.fixture
def now() -> Time:
    return Time()


@pytest.fixture
def open_store(tmp_path: Path, now: Time) -> Callable[..., BlockStore]:
    return lambda quota=QUOTA: BlockStore(tmp_path / "blocks", quota, now)


def test_blocks_survive_a_reopening(open_store: Callable[..., BlockStore]) -> None:
    blocks = [block(i, size) for i, size in enumerate((0, 1, 16384, 16385, 262144, 2 * 1024 * 1024))]
    store = open_store()
    assert len(store.put_many(blocks)) == len(blocks)
    assert store.put_many(blocks) == [], "they are there already"
    store.close()
    store = open_store()
    assert store.get_many([one.cid for one in blocks]) == [one.data for one in blocks]
    assert store.stat().blocks == len(blocks)
    assert store.stat().bytes == sum(len(one.data) for one in blocks)
    assert store.get(cid_of(b"absent")) is None
    store.close()


def test_a_torn_end_of_a_pack_is_cut_off(open_store: Callable[..., BlockStore], tmp_path: Path) -> None:
    store = open_store()
    store.put_many([block(1)])
    store.close()
    (pack,) = (tmp_path / "blocks" / "packs").iterdir()
    with open(pack, "ab") as file:
        file.write(b"torn by a crash")
    (pack.parent / "00000007.pack").write_bytes(b"never indexed")
    store = open_store()
    store.put_many([block(2)])
    store.close()
    store = open_store()
    assert store.get_many([block(1).cid, block(2).cid]) == [block(1).data, block(2).data]
    assert [path.name for path in pack.parent.iterdir()] == [pack.name]
    assert pack.stat().st_size == 2 * LARGE
    store.close()


def test_a_lost_pack_is_said_and_not_guessed_over(open_store: Callable[..., BlockStore], tmp_path: Path) -> None:
    store = open_store()
    store.put_many([block(1)])
    store.close()
    (pack,) = (tmp_path / "blocks" / "packs").iterdir()
    os.truncate(pack, LARGE - 1)
    with pytest.raises(StorageError, match=r"00000001\.pack lacks bytes"):
        open_store()


def test_a_damaged_block_counts_as_missing_and_can_be_put_again(
    open_store: Callable[..., BlockStore], tmp_path: Path
) -> None:
    blocks, root = tree(3, 1)
    store = open_store()
    store.put_many(blocks)
    store.use(root, whole=True)
    assert store.has_whole(root)
    (pack,) = (tmp_path / "blocks" / "packs").iterdir()
    with open(pack, "r+b") as file:
        file.seek(LARGE + 5)
        file.write(b"damage")
    found = store.get_many([one.cid for one in blocks])
    assert [one is None for one in found].count(True) == 1
    assert not store.has_whole(root)
    store.put_many(blocks)
    assert store.has_whole(root)
    assert store.get_many([one.cid for one in blocks]) == [one.data for one in blocks]
    store.close()


def test_a_failed_write_promises_nothing(
    open_store: Callable[..., BlockStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    store.put_many([block(1)])
    with monkeypatch.context() as patch:

        def full(descriptor: int, data: memoryview) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            store.put_many([block(2), block(3, 10)])
    assert store.has_many([block(2).cid, block(3, 10).cid]) == [False, False]
    store.put_many([block(2)])
    assert store.get_many([block(1).cid, block(2).cid]) == [block(1).data, block(2).data]
    assert store.stat().blocks == 2
    store.close()


KILLED = """
import random, sys
from pathlib import Path
from mesh.content.blocks import BlockStore
from mesh.content.unixfs.cid import cid_of
from mesh.content.unixfs.nodes import Block
store = BlockStore(Path(sys.argv[1]))
number = 0
while True:
    data = [random.Random(number + i).randbytes(30_000) for i in range(4)]
    store.put_many([Block(cid_of(one), one) for one in data])
    number += 4
    print(number, flush=True)
"""


def test_what_was_promised_before_a_kill_is_there(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "blocks")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    promised = 0
    for line in writer.stdout:
        promised = int(line)
        if promised >= 40:
            writer.kill()
    writer.communicate()
    store = BlockStore(tmp_path / "blocks")
    datas = [random.Random(number).randbytes(30_000) for number in range(promised)]
    assert store.get_many([cid_of(data) for data in datas]) == datas
    store.close()


def test_collection_keeps_what_pins_and_recent_roots_reach(open_store: Callable[..., BlockStore], now: Time) -> None:
    store = open_store()
    pinned, pinned_root = tree(3, 1)
    used, used_root = tree(3, 2)
    forgotten, forgotten_root = tree(3, 3)
    for blocks, root in ((pinned, pinned_root), (used, used_root), (forgotten, forgotten_root)):
        store.put_many(blocks)
        store.use(root, whole=True)
    store.pin([pinned_root], PinOwner.USER, "kept")
    assert store.collect().blocks == 0, "everything was put a moment ago"
    now.pass_grace()
    store.use(used_root, whole=True)
    fresh = block(99)
    store.put_many([fresh])
    losses = store.losses
    gone = store.collect()
    assert gone.blocks == len(forgotten)
    assert store.losses > losses
    assert store.has_whole(pinned_root)
    assert store.has_whole(used_root)
    assert not store.has_whole(forgotten_root)
    assert store.get(fresh.cid) == fresh.data
    store.unpin([(pinned_root, PinOwner.USER, NO_RUN)])
    now.pass_grace()
    store.collect()
    assert store.stat().blocks == 0
    store.close()


def test_packs_that_are_mostly_holes_are_rewritten(
    open_store: Callable[..., BlockStore], now: Time, tmp_path: Path
) -> None:
    store = open_store()
    kept, root = tree(2, 1)
    doomed, _ = tree(20, 2)
    store.put_many(doomed[:10] + kept + doomed[10:])
    store.pin([root], PinOwner.USER, "kept")
    now.pass_grace()
    store.collect()
    size = sum(path.stat().st_size for path in (tmp_path / "blocks" / "packs").iterdir())
    assert size == 2 * LARGE
    assert store.get_many([one.cid for one in kept]) == [one.data for one in kept]
    store.close()
    store = open_store()
    assert store.get_many([one.cid for one in kept]) == [one.data for one in kept]
    store.close()


def test_the_quota_evicts_the_oldest_and_refuses_when_all_is_pinned(
    open_store: Callable[..., BlockStore], now: Time
) -> None:
    store = open_store(10 * LARGE)
    for number in range(8):
        store.put_many([block(number)])
        now.seconds += 1
    now.pass_grace()
    store.put_many([block(100), block(101), block(102)])
    assert store.stat().bytes <= 10 * LARGE
    here = store.has_many([block(number).cid for number in range(8)])
    assert here == sorted(here), "the oldest went first"
    assert not here[0]
    assert here[-1]
    blocks, root = tree(5, 9)
    store.put_many(blocks)
    store.pin([root], PinOwner.USER, "kept")
    now.pass_grace()
    with pytest.raises(StorageError, match="quota of 400000"):
        store.put_many([block(200 + number) for number in range(7)])
    assert store.has_whole(root)
    store.close()


def lose_at_walks(store: BlockStore, monkeypatch: pytest.MonkeyPatch, collect: Callable[[int], None]) -> None:
    """Call `collect` with the number of each walk over a root when it has ended, and before it is marked."""
    walk = store._reach
    walks = 0

    def walk_and_lose(roots: Sequence[Cid], stop_if_missing: bool) -> set[bytes] | None:
        nonlocal walks
        reached = walk(roots, stop_if_missing)
        if stop_if_missing:
            walks += 1
            collect(walks)
        return reached

    monkeypatch.setattr(store, "_reach", walk_and_lose)


def test_a_root_is_not_marked_whole_if_its_blocks_went_after_the_walk(
    open_store: Callable[..., BlockStore], now: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, root = tree(3, 1)
    store = open_store()
    store.put_many(blocks)
    now.pass_grace()
    lose_at_walks(store, monkeypatch, lambda walk: store.collect())
    assert not store.has_whole(root)
    assert not store.is_marked_whole(root)
    store.close()


@pytest.mark.parametrize(("losing", "whole"), [(1, True), (100, False)])
def test_a_walk_that_others_losses_disturbed_is_made_anew(
    open_store: Callable[..., BlockStore], now: Time, monkeypatch: pytest.MonkeyPatch, losing: int, whole: bool
) -> None:
    blocks, root = tree(3, 1)
    store = open_store()
    store.put_many(blocks)
    store.put_many([block(number) for number in range(10)])
    store.pin([root], PinOwner.USER, "stays")
    now.pass_grace()

    def lose_one_of_the_others(walk: int) -> None:
        if walk <= losing:
            assert store.collect(store.stat().bytes - 1).blocks == 1

    lose_at_walks(store, monkeypatch, lose_one_of_the_others)
    assert store.has_whole(root) is whole
    assert store.is_marked_whole(root) is whole
    store.close()


def test_recent_roots_that_are_whole(open_store: Callable[..., BlockStore], now: Time) -> None:
    store = open_store()
    roots = []
    for seed in range(3):
        blocks, root = tree(2, seed)
        store.put_many(blocks if seed != 1 else blocks[1:])
        store.use(root, whole=seed != 1)
        roots.append(root)
        now.seconds += 1
    assert store.recent(10) == [roots[2], roots[0]]
    store.use(roots[0], whole=False)
    assert store.recent(1) == [roots[0]]
    store.close()


def test_threads_may_read_while_one_writes(open_store: Callable[..., BlockStore]) -> None:
    store = open_store()
    store.put_many([block(0)])
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(1 for _ in range(200) if store.get(block(0).cid) != block(0).data)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 30):
        store.put_many([block(number)])
    for reader in readers:
        reader.join()
    assert wrong == []
    store.close()


async def test_puts_at_one_time_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_local(tmp_path / "blocks") as repository:
        commits = []
        put = repository._store.put_many

        def count(blocks: Sequence[Block]) -> list[Cid]:
            commits.append(len(blocks))
            return put(blocks)

        monkeypatch.setattr(repository._store, "put_many", count)
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(repository.put_many, [block(number)])
        assert sum(commits) == 50
        assert len(commits) <= 5
        assert (await repository.stat()).blocks == 50


async def test_a_failed_commit_is_told_to_each_who_waits(tmp_path: Path) -> None:
    async with open_local(tmp_path / "blocks", quota_bytes=LARGE) as repository:
        failures = []

        async def put(number: int) -> None:
            try:
                await repository.put_many([block(number)])
            except StorageError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(put, number)
        assert failures
        assert (await repository.stat()).bytes <= LARGE


async def test_a_put_that_is_cancelled_does_not_strand_the_others(tmp_path: Path) -> None:
    async with open_local(tmp_path / "blocks") as repository:
        busy = [object() for _ in range(4)]
        for borrower in busy:
            await repository._threads.acquire_on_behalf_of(borrower)
        async with trio.open_nursery() as nursery:
            leader = trio.CancelScope()

            async def put_and_be_cancelled() -> None:
                with leader:
                    await repository.put_many([block(1)])

            nursery.start_soon(put_and_be_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(repository.put_many, [block(2)])
            nursery.start_soon(repository.put_many, [block(3)])
            await trio.testing.wait_all_tasks_blocked()
            leader.cancel()
            await trio.testing.wait_all_tasks_blocked()
            for borrower in busy:
                repository._threads.release_on_behalf_of(borrower)
        assert await repository.has_many([block(2).cid, block(3).cid]) == [True, True]


async def test_a_block_that_is_too_large_fails_alone(tmp_path: Path) -> None:
    async with open_local(tmp_path / "blocks") as repository:
        with pytest.raises(LocalProtocolError, match="over the limit"):
            await repository.put_many([block(1, 2 * 1024 * 1024 + 1)])
        assert (await repository.stat()).blocks == 0
