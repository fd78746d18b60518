"""What a node keeps, and for whom: the user's pins and the mesh's, apart from each other."""

import sqlite3
from pathlib import Path

import pytest

from mesh.content.blocks import BlockStore
from mesh.content.pins import PinBook
from mesh.content.unixfs.cid import cid_of
from mesh.content.unixfs.nodes import Block
from mesh.ports import KeptRoot, PinOwner
from protocols.errors import StorageError
from protocols.ids import NO_RUN, Cid, RunId

ONE, TWO = (Block(cid_of(text), text) for text in (b"one", b"two"))
USER, MESH = PinOwner.USER, PinOwner.MESH


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_two_owners_keep_the_same_root_apart_from_each_other(tmp_path: Path) -> None:
    now = Time()
    store = BlockStore(tmp_path / "blocks", now=now)
    store.put_many([ONE, TWO])
    store.pin([ONE.cid], USER, "mine")
    now.now += 1
    store.pin([ONE.cid, TWO.cid], MESH, "run 7", RunId(7))
    assert store.kept() == sorted(
        (
            KeptRoot(ONE.cid, MESH, "run 7", RunId(7), 1001.0),
            KeptRoot(ONE.cid, USER, "mine", NO_RUN, 1000.0),
            KeptRoot(TWO.cid, MESH, "run 7", RunId(7), 1001.0),
        ),
        key=lambda one: one.key,
    )
    assert store.stat().pins == 2
    now.now += 10_000
    store.unpin([(ONE.cid, USER, NO_RUN)])
    store.unpin([(TWO.cid, USER, NO_RUN), (TWO.cid, MESH, RunId(8))])
    assert store.collect().blocks == 0, "the mesh keeps both"
    store.unpin([(ONE.cid, MESH, RunId(7))])
    assert store.collect().blocks == 1
    assert [one.root for one in store.kept()] == [TWO.cid]
    store.close()


def test_what_two_runs_made_alike_stays_until_both_are_over(tmp_path: Path) -> None:
    now = Time()
    store = BlockStore(tmp_path / "blocks", now=now)
    store.put_many([ONE])
    for run in (7, 9):
        store.pin([ONE.cid], MESH, f"run {run}", RunId(run))
    now.now += 10_000
    store.unpin([(ONE.cid, MESH, RunId(9))])
    assert store.collect().blocks == 0
    store.unpin([(ONE.cid, MESH, RunId(7))])
    assert store.collect().blocks == 1
    store.close()


def test_the_pins_of_a_store_from_before_they_had_owners_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    connection = sqlite3.connect(tmp_path / "blocks" / "blocks.db")
    connection.execute("CREATE TABLE pin (cid TEXT PRIMARY KEY, reason TEXT NOT NULL)")
    connection.executemany("INSERT INTO pin VALUES (?, ?)", [(ONE.cid, "user"), (TWO.cid, "report of run 3")])
    connection.commit()
    connection.close()
    for _ in range(2):
        store = BlockStore(tmp_path / "blocks", now=Time())
        assert {(one.root, one.owner, one.reason) for one in store.kept()} == {
            (ONE.cid, USER, "user"),
            (TWO.cid, MESH, "report of run 3"),
        }
        store.close()
    store = BlockStore(tmp_path / "blocks")
    store.unpin([(ONE.cid, USER, NO_RUN)])
    store.close()
    store = BlockStore(tmp_path / "blocks")
    assert [one.root for one in store.kept()] == [TWO.cid], "taken over once"
    store.close()


def test_the_book_beside_a_daemon_says_who_is_left(tmp_path: Path) -> None:
    book = PinBook(tmp_path / "pins.sqlite", Time())
    book.put([ONE.cid], USER, "mine", NO_RUN)
    book.put([ONE.cid, TWO.cid], MESH, "run 7", RunId(7))
    assert book.remove([(ONE.cid, USER, NO_RUN)]) == []
    assert book.remove([(ONE.cid, MESH, RunId(7)), (Cid("bafknever"), MESH, NO_RUN)]) == [ONE.cid, Cid("bafknever")]
    book.close()
    book = PinBook(tmp_path / "pins.sqlite")
    assert book.rows() == [KeptRoot(TWO.cid, MESH, "run 7", RunId(7), 1000.0)]
    book.close()


def test_a_book_that_can_t_be_kept_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"can't keep the pins in .*nowhere"):
        PinBook(tmp_path / "nowhere" / "pins.sqlite")
