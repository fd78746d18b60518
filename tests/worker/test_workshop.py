"""Bundles on a worker's disk: one that does not come keeps no other waiting, and old ones make room."""

from pathlib import Path

import trio

from mesh.manifests import Manifests
from mesh.worker.environments import Environments
from mesh.worker.sessions import BUNDLES_MAX, Workshop
from protocols.ids import Cid, LeaseId, PeerId, RunId
from protocols.manifests import RunSpec
from protocols.work import Assign
from tests.fakes.content import FakeContent, Shelves
from tests.fakes.network import Lan
from tests.fakes.runner import FakeRunner, suite_of
from tests.fakes.threads import no_threads

HERE = PeerId("a")


class SlowContent(FakeContent):
    """One bundle never comes."""

    missing = Cid("")

    async def fetch(self, cid: Cid, holders: object = ()) -> None:
        if cid == self.missing:
            await trio.sleep_forever()
        await super().fetch(cid)


def workshop(content: FakeContent, folder: Path) -> Workshop:
    return Workshop(
        content=content,
        manifests=Manifests(content),
        runner=FakeRunner(suite_of(3)),
        folder=folder / "bundles",
        peer=HERE,
        slots=1,
        environments=Environments(folder / "environments", dict, lambda: None),
        hardware=lambda: "linux x86_64",
    )


def collection(bundle: Cid, name: str = "suite") -> Assign:
    spec = RunSpec(bundle, name, name, HERE)
    return Assign(LeaseId(1), RunId(1), spec, None, (), ())


async def test_a_bundle_that_does_not_come_keeps_no_other_waiting(tmp_path, autojump_clock):
    with no_threads():
        content = SlowContent(Shelves(Lan()), HERE)
        made = workshop(content, tmp_path)
        content.missing, other = [await content.put(name) for name in (b"missing", b"other")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.collect, collection(content.missing))
            with trio.fail_after(10):
                found = await made.collect(collection(other))
            nursery.cancel_scope.cancel()
        assert found.manifest is not None
        assert made.bundles() == (other,)


async def test_old_bundles_make_room(tmp_path, autojump_clock):
    with no_threads():
        content = FakeContent(Shelves(Lan()), HERE)
        made = workshop(content, tmp_path)
        bundles = [await content.put(b"bundle %d" % number) for number in range(BUNDLES_MAX + 2)]
        for number, bundle in enumerate(bundles):
            await made.collect(collection(bundle, f"suite {number}"))
        assert made.bundles() == tuple(reversed(bundles[2:]))
        assert {path.name for path in (tmp_path / "bundles").iterdir()} == set(bundles[2:])


async def test_the_next_version_of_a_tree_is_made_of_one_that_nothing_uses(tmp_path, autojump_clock):
    with no_threads():
        content = FakeContent(Shelves(Lan()), HERE)
        made = workshop(content, tmp_path)
        first, second, third = [await content.put(b"version %d" % number) for number in range(3)]
        async with made._tree(collection(first)) as tree:
            (tree / "mark").touch()
            await made.collect(collection(second))
            assert made.bundles() == (second, first), "the first is in use"
        await made.collect(collection(third))
        assert made.bundles() == (third, first), "the newest that is not"
        assert {path.name for path in (tmp_path / "bundles").iterdir()} == {third, first}
        assert (tmp_path / "bundles" / first / "suite" / "mark").exists()
