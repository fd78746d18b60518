"""Pins on a real Kubo, which knows no owners: the user's, the mesh's, and those of others."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mesh.content.kubo import open_kubo_content
from mesh.ports import PinOwner
from protocols.ids import NO_RUN, Cid, RunId
from tests.content.content_nodes import KEY
from tests.interop.kubo_daemon import Kubo, needs_kubo, new_kubo

pytestmark = [pytest.mark.kubo, needs_kubo]


@pytest.fixture(scope="module")
def kubo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubo]:
    with new_kubo(tmp_path_factory.mktemp("kubo"), KEY).running() as running:
        yield running


async def pinned(kubo: Kubo) -> set[str]:
    listed = await trio.to_thread.run_sync(lambda: kubo.run("pin", "ls", "--type=recursive", "-q"))
    return set(listed.split())


async def test_a_daemon_pins_until_nobody_wants_it_any_more(kubo: Kubo, tmp_path: Path) -> None:
    book = tmp_path / "pins.sqlite"
    async with open_kubo_content(kubo.api, book=book) as content:
        root, other = await content.put_many([b"a report", b"an artifact"])
        await content.pin(root, "mine")
        await content.hold([root], "report of run 3")
        await content.hold([root, other], "run 4", RunId(4))
        assert {root, other} <= await pinned(kubo)
    async with open_kubo_content(kubo.api, book=book) as content:
        kept = [one.key for one in await content.kept() if one.root in (root, other)]
        assert sorted(kept) == sorted(
            [
                (root, PinOwner.MESH, NO_RUN),
                (root, PinOwner.MESH, RunId(4)),
                (root, PinOwner.USER, NO_RUN),
                (other, PinOwner.MESH, RunId(4)),
            ]
        )
        assert (await content.pins())[root] == "mine"
        assert await content.size(root) == 8
        await content.unpin(root)
        await content.release([(root, PinOwner.MESH, RunId(4)), (other, PinOwner.MESH, RunId(4))])
        assert root in await pinned(kubo)
        assert other not in await pinned(kubo)
        await content.release([(root, PinOwner.MESH, NO_RUN)])
        assert root not in await pinned(kubo)


async def test_what_somebody_else_had_the_daemon_pin_stays_pinned(kubo: Kubo, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    added = await trio.to_thread.run_sync(lambda: kubo.run("add", "-Q", "--cid-version=1", str(tmp_path / "theirs")))
    root = Cid(added.strip())
    async with open_kubo_content(kubo.api, book=tmp_path / "pins.sqlite") as content:
        assert [one.owner for one in await content.kept() if one.root == root] == [PinOwner.USER]
        await content.hold([root], "run 4", RunId(4))
        await content.release([(root, PinOwner.MESH, RunId(4))])
        assert root in await pinned(kubo)
        await content.unpin(root)
        assert root not in await pinned(kubo)
