"""The Content port on our own store, alone on this host."""

import os
from pathlib import Path

import pytest

from mesh.content.blocks import GRACE_SECONDS, BlockStore
from mesh.content.local import LocalRepository
from mesh.content.store import EmbeddedContent, open_content
from mesh.content.tree import bundle_files
from protocols.errors import ContentNotFound, LocalProtocolError, UsageError
from protocols.ids import Cid


def make_tree(root: Path) -> None:
    (root / "package" / "inner").mkdir(parents=True)
    (root / "package" / "a.py").write_bytes(b"print(1)\n")
    (root / "package" / "inner" / "large.bin").write_bytes(bytes(range(256)) * 4096)
    (root / "package" / "empty").write_bytes(b"")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("package/a.py")
    (root / "to-directory").symlink_to("package")
    (root / "hollow").mkdir()


def tree_of(root: Path) -> dict[str, object]:
    """What is under `root`: names to content, link targets and the executable bit."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


async def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    async with open_content(tmp_path / "home") as content:
        root = await content.add_path(tmp_path / "tree")
        await content.checkout(root, tmp_path / "copy" / "deep")
        assert tree_of(tmp_path / "copy" / "deep") == tree_of(tmp_path / "tree")
        assert await content.has(root)
        assert await content.add_path(tmp_path / "tree") == root
        read = [data async for data in content.read(root, "package/inner/large.bin")]
        assert b"".join(read) == bytes(range(256)) * 4096


async def test_content_survives_a_restart_with_its_pins(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        root = await content.add_files({"a/b.txt": b"x" * 300_000, "c": b"small"})
        await content.pin(root, "a report")
    async with open_content(tmp_path / "home") as content:
        assert await content.pins() == {root: "a report"}
        assert await content.has(root)
        assert (await content.stat()).pins == 1
        assert b"".join([data async for data in content.read(root, "a/b.txt")]) == b"x" * 300_000
        await content.unpin(root)
        assert await content.pins() == {}


async def test_blocks_by_codec(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        one, two = await content.put_many([b"\xa0", b"\x80"], "dag-cbor")
        assert one.startswith("bafy")
        assert await content.get(one) == b"\xa0"
        assert await content.get(two) == b"\x80"
        assert (await content.put(b"hello world\n")) == "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
        with pytest.raises(LocalProtocolError, match="over the limit"):
            await content.put(b"x" * (2 * 1024 * 1024 + 1))


async def test_add_files_takes_bytes_paths_and_cids(tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"local")
    async with open_content(tmp_path / "home") as content:
        inner = await content.add_files({"x": b"1", "y": b"2"})
        root = await content.add_files({"dir/bytes": b"data", "path": tmp_path / "local", "tree": inner})
        await content.checkout(root, tmp_path / "out")
        assert tree_of(tmp_path / "out") == {
            "dir": None,
            "dir/bytes": (b"data", False),
            "path": (b"local", False),
            "tree": None,
            "tree/x": (b"1", False),
            "tree/y": (b"2", False),
        }


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/../b", ".", "", "a\0b"])
async def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    async with open_content(tmp_path / "home") as content:
        with pytest.raises(UsageError):
            await content.add_files({name: b"x"})


async def test_what_is_not_here_is_named(tmp_path: Path) -> None:
    missing = Cid("bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4")
    async with open_content(tmp_path / "home") as content:
        for attempt in (content.get(missing), content.fetch(missing), content.checkout(missing, tmp_path / "out")):
            with pytest.raises(ContentNotFound, match=missing):
                await attempt
        assert not await content.has(missing)
        assert not list(tmp_path.glob("*out*"))
        assert not list(tmp_path.glob(".out*"))
        with pytest.raises(UsageError, match="not a CID"):
            await content.has(Cid("bafynonsense!"))


async def test_checkout_refuses_what_exists(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        root = await content.add_files({"a": b"1"})
        (tmp_path / "there").mkdir()
        with pytest.raises(UsageError, match="exists already"):
            await content.checkout(root, tmp_path / "there")


async def test_a_link_that_leaves_the_tree_is_named(tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"")
    (tmp_path / "tree" / "sub" / "bad").symlink_to("../../outside")
    async with open_content(tmp_path / "home") as content:
        with pytest.raises(UsageError, match=r"sub/bad links to \.\./\.\./outside"):
            await content.add_path(tmp_path / "tree")


async def test_an_unchanged_tree_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "tree")
    for path in (tmp_path / "tree").rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    async with open_content(tmp_path / "home") as content:
        root = await content.add_path(tmp_path / "tree")
        opened: list[str] = []

        def spy(path: object, *arguments: object, **options: object) -> object:
            opened.append(str(path))
            return open(path, *arguments, **options)  # type: ignore[call-overload]

        monkeypatch.setattr("mesh.content.adding.open", spy, raising=False)
        assert await content.add_path(tmp_path / "tree") == root
        assert opened == []
        changed = tmp_path / "tree" / "package" / "a.py"
        changed.write_bytes(b"print(2)\n")
        os.utime(changed, (1_000_000_000, 1_000_000_000))
        assert await content.add_path(tmp_path / "tree") != root
        assert opened == [str(changed)]


async def test_a_bundle_of_some_names(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "tree" / "__pycache__").mkdir()
    (tmp_path / "tree" / "__pycache__" / "a.pyc").write_bytes(b"junk")
    async with open_content(tmp_path / "home") as content:
        names = bundle_files(tmp_path / "tree")
        root = await content.add_path(tmp_path / "tree", names)
        await content.checkout(root, tmp_path / "out")
        expected = tree_of(tmp_path / "tree")
        for absent in ("__pycache__", "__pycache__/a.pyc", "hollow"):
            del expected[absent]
        assert tree_of(tmp_path / "out") == expected


async def test_what_was_here_when_it_was_fetched_is_not_collected_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    store = BlockStore(tmp_path / "blocks", now=lambda: now)
    repository = LocalRepository(store)
    content = EmbeddedContent(repository, None)
    root = await content.add_files({"a": b"1", "b": b"2"})
    now += GRACE_SECONDS + 1
    look = repository.has_whole

    async def look_and_collect(root: Cid) -> bool:
        found = await look(root)
        await repository.collect()
        return found

    monkeypatch.setattr(repository, "has_whole", look_and_collect)
    await content.fetch(root)
    assert [data async for data in content.read(root, "b")] == [b"2"]
    assert store.is_marked_whole(root)
    store.close()
