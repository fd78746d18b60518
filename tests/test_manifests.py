"""All of a node share what it decodes."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
import trio.testing

from mesh import manifests as manifests_module
from mesh.manifests import Manifests
from protocols.codec import encode
from protocols.errors import ContentNotFound, RemoteProtocolError
from protocols.ids import Cid, PeerId
from protocols.manifests import CollectedTest, Manifest


def manifest(name: str, tests: int) -> Manifest:
    return Manifest(Cid(name), tuple(CollectedTest(f"t{number}", "a.py") for number in range(tests)))


class Store:
    """`Content`, as far as manifests are read from it."""

    def __init__(self, *sizes: int) -> None:
        self.files = {Cid(f"m{tests}"): encode(manifest(f"b{tests}", tests)) for tests in sizes}
        self.reads: list[Cid] = []

    async def fetch(self, root: Cid, holders: Sequence[PeerId] = (), timeout: float = 60.0) -> None:
        await trio.lowlevel.checkpoint()
        if root not in self.files:
            raise ContentNotFound(root)

    async def read(self, root: Cid) -> AsyncIterator[bytes]:
        self.reads.append(root)
        yield self.files[root][:100]
        await trio.lowlevel.checkpoint()
        yield self.files[root][100:]


def shared_by(store: Store) -> Manifests:
    return Manifests(cast("Any", store))


async def test_it_is_decoded_once_for_all_who_ask_at_the_same_time() -> None:
    store = Store(3_000)
    shared = shared_by(store)
    found: list[Manifest] = []

    async def ask() -> None:
        found.append(await shared.get(Cid("m3000")))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    assert found[0] == manifest("b3000", 3_000)
    assert all(one is found[0] for one in found)


async def test_what_is_in_memory_waits_for_nobody() -> None:
    store = Store(5)
    shared = shared_by(store)
    await shared.get(Cid("m5"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shared._turn.acquire)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(0):
            await shared.get(Cid("m5"))


async def test_who_gives_up_leaves_the_turn_to_the_next() -> None:
    store = Store(3_000, 5)
    shared = shared_by(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shared.get, Cid("m3000"))
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len((await shared.get(Cid("m5"))).tests) == 5


async def test_the_tests_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests_module, "TESTS_MAX", 100)
    store = Store(40, 50, 60, 200)
    shared = shared_by(store)
    for name in ("m40", "m50", "m40", "m60", "m40", "m50", "m200", "m200"):
        assert len((await shared.get(Cid(name))).tests) == int(name[1:])
    assert store.reads == ["m40", "m50", "m60", "m50", "m200"], "who was asked for longest ago went; the last one stays"


async def test_the_number_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests_module, "MANIFESTS_MAX", 2)
    store = Store(0, 1, 2)
    shared = shared_by(store)
    for name in ("m0", "m1", "m2", "m2", "m1", "m0"):
        await shared.get(Cid(name))
    assert store.reads == ["m0", "m1", "m2", "m0"]


async def test_what_is_not_asked_for_again_is_not_kept() -> None:
    store = Store(5)
    shared = shared_by(store)
    await shared.get(Cid("m5"), keep=False)
    await shared.get(Cid("m5"))
    await shared.get(Cid("m5"), keep=False)
    assert store.reads == ["m5", "m5"]


async def test_what_is_nowhere_or_none_is_said_to_each() -> None:
    store = Store()
    store.files[Cid("junk")] = b"junk"
    shared = shared_by(store)
    for _ in range(2):
        with pytest.raises(ContentNotFound):
            await shared.get(Cid("m1"))
        with pytest.raises(RemoteProtocolError):
            await shared.get(Cid("junk"))
