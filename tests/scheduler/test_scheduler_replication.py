"""Copies of what is pinned: where they go, when they are replaced, and when pins of finished runs end."""

from dataclasses import replace

import pytest

from mesh.scheduler import letting_go
from mesh.scheduler.letting_go import BUNDLES, DAY_SECONDS, REPORTS, let_go
from mesh.scheduler.replication import Copy, Place, Replication, is_under, replicate
from mesh.state.model import Pin, PinReason
from protocols.commands import PinKind, PinReference, Placement
from protocols.ids import Cid, PeerId, RunId

GRACE = 60.0
GIB = 1024**3
ROOT = Cid("bafyroot")
A, B, C, D = map(PeerId, "abcd")


def place(peer: PeerId, host: str = "", free: int = 100 * GIB, **changes: object) -> Place:
    return replace(Place(peer, host or f"host-{peer}", free, True, 0.0, True), **changes)  # type: ignore[arg-type]


def away(peer: PeerId, seconds: float) -> Place:
    return place(peer, here=False, gone=seconds)


def pin(*holders: PeerId, wanted: int = 2, root: Cid = ROOT, size: int = 1000) -> Pin:
    return Pin(root, (PinReason(PinKind.REPORT, RunId(1), "report of run 1", 0.0, wanted),), holders, size)


def decided(pin: Pin, *places: Place, known: dict[Cid, list[PeerId]] | None = None) -> Replication:
    return replicate([pin], {one.peer: one for one in places}, GRACE, known or {})


NOTHING = Replication((), (), ())
WAITING = Replication((), (), (), settled=False)


def test_nothing_is_to_be_done_for_what_is_where_it_should_be() -> None:
    assert decided(pin(A, B), place(A), place(B), place(C)) == NOTHING


def test_a_copy_goes_to_another_host_before_it_goes_where_there_is_most_room() -> None:
    places = [place(A, "one"), place(B, "one", 900 * GIB), place(C, "two", 50 * GIB), place(D, "three", 70 * GIB)]
    assert decided(pin(A), *places).copies == (Copy(ROOT, 1, (D, C, B), (A,)),)


def test_who_has_it_already_comes_first_among_equals() -> None:
    found = decided(pin(A), place(A), place(B, free=200 * GIB), place(C), known={ROOT: [C, D]})
    assert found.copies == (Copy(ROOT, 1, (C, B), (A, C)),)


def test_who_has_no_room_or_takes_nothing_comes_last_or_not_at_all() -> None:
    places = [place(A), place(B, free=GIB), place(C, free=0), place(D, takes=False)]
    assert decided(pin(A), *places).copies == (Copy(ROOT, 1, (B, C), (A,)),), "better there than nowhere"


def test_copies_are_shared_out_among_equals() -> None:
    pins = [pin(A, root=Cid(f"bafy{number}")) for number in range(6)]
    found = replicate(pins, {one.peer: one for one in (place(A), place(B), place(C))}, GRACE, {})
    firsts = [copy.candidates[0] for copy in found.copies]
    assert sorted(firsts) == [B, B, B, C, C, C]


def test_space_that_was_promised_is_not_promised_again() -> None:
    pins = [pin(A, root=Cid(f"bafy{number}"), size=60 * GIB) for number in range(2)]
    found = replicate(pins, {one.peer: one for one in (place(A), place(B, free=150 * GIB), place(C))}, GRACE, {})
    assert [copy.candidates[0] for copy in found.copies] == [B, C]


def test_a_holder_that_is_away_counts_for_a_while() -> None:
    assert decided(pin(A, B), place(A), away(B, GRACE), place(C)) == WAITING
    found = decided(pin(A, B), place(A), away(B, GRACE + 1), place(C))
    assert found.copies == (Copy(ROOT, 1, (C,), (A,)),)
    assert not found.drops, "it may come back with the only copy"
    assert decided(pin(A, B), place(A), place(C)).copies, "one of whom nobody knows is away as well"


def test_who_was_replaced_is_dropped_and_so_is_what_is_too_much() -> None:
    assert decided(pin(A, B, C), place(A), away(B, GRACE + 1), place(C)).drops == (Placement(ROOT, (), (B,)),)
    assert decided(pin(A, B, C), place(A), away(B, 5.0), place(C)).drops == (Placement(ROOT, (), (B,)),)
    assert decided(pin(A, B, C), place(A), place(B, "host-a"), place(C)).drops == (Placement(ROOT, (), (B,)),)
    assert decided(pin(A, B, C), away(A, 1.0), away(B, 1.0), place(C)) == WAITING, "none of few is dropped"


def test_copies_on_one_host_are_spread_when_there_is_another() -> None:
    crowded = decided(pin(A, B), place(A, "one"), place(B, "one"), place(C, "two"))
    assert crowded.copies == (Copy(ROOT, 1, (C,), (A, B)),)
    after = decided(pin(A, B, C), place(A, "one"), place(B, "one"), place(C, "two"))
    assert after.drops == (Placement(ROOT, (), (B,)),)
    assert decided(pin(A, C), place(A, "one"), place(B, "one"), place(C, "two")) == NOTHING
    assert decided(pin(A, B), place(A, "one"), place(B, "one"), place(C, "two", takes=False)) == NOTHING


def test_what_nobody_has_is_looked_for() -> None:
    assert decided(pin(), place(A), place(B)).lost == (ROOT,)
    assert decided(pin(A, B), away(A, 99.0), away(B, 99.0), place(C)).lost == (ROOT,)
    found = decided(pin(), place(A), place(B), known={ROOT: [B]})
    assert found.copies == (Copy(ROOT, 2, (B, A), (B,)),)


def test_too_few_nodes_take_what_they_can() -> None:
    assert decided(pin(A, wanted=5), place(A), place(B)).copies == (Copy(ROOT, 1, (B,), (A,)),)
    assert decided(pin(A, wanted=5), place(A)) == WAITING
    assert is_under(pin(A, wanted=5), {A})
    assert not is_under(pin(A, B), {A, B, C})


# Letting go


def of_run(number: int, kind: PinKind, since: float, size: int = 1) -> Pin:
    return Pin(Cid(f"bafy{kind}{number}"), (PinReason(kind, RunId(number), "", since, 2),), (), size)


def gone(pins: list[Pin], needed: tuple[Cid, ...] = (), now: float = 0.0) -> set[Cid]:
    return {reference.root for reference in let_go(pins, needed, now)}


def test_reports_outlive_bundles() -> None:
    pins = [of_run(number, kind, 0.0) for kind in (PinKind.REPORT, PinKind.BUNDLE) for number in range(2)]
    assert gone(pins, now=13 * DAY_SECONDS) == set()
    assert gone(pins, now=15 * DAY_SECONDS) == {"bafybundle1"}, "the newest stays"
    assert gone(pins, now=91 * DAY_SECONDS) == {"bafybundle1", "bafyreport1"}
    assert REPORTS.seconds > BUNDLES.seconds


def test_the_oldest_go_when_they_are_too_many_or_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    few = letting_go.Limits(DAY_SECONDS, 3, 100)
    monkeypatch.setitem(letting_go.LIMITS, PinKind.BUNDLE, few)
    pins = [of_run(number, PinKind.BUNDLE, float(number)) for number in range(5)]
    assert gone(pins) == {"bafybundle0", "bafybundle1"}
    large = [of_run(number, PinKind.BUNDLE, float(number), 60) for number in range(3)]
    assert gone(large) == {"bafybundle0", "bafybundle1"}
    assert gone([of_run(9, PinKind.BUNDLE, 9.0, 1000)]) == set()


def test_what_users_pinned_and_what_open_runs_need_stays() -> None:
    old = [of_run(number, PinKind.BUNDLE, 0.0) for number in range(3)]
    mine = Pin(Cid("bafymine"), (PinReason(PinKind.USER, RunId(0), "user", 0.0, 2),))
    assert gone([*old, mine], (old[2].root,), 1000 * DAY_SECONDS) == {old[1].root}


def test_only_the_reason_that_ended_is_taken_away() -> None:
    both = replace(
        of_run(1, PinKind.BUNDLE, 0.0),
        reasons=(of_run(1, PinKind.BUNDLE, 0.0).reasons[0], PinReason(PinKind.USER, RunId(0), "user", 0.0, 2)),
    )
    newer = of_run(2, PinKind.BUNDLE, 5.0)
    assert let_go([both, newer], (), 30 * DAY_SECONDS) == (PinReference(both.root, PinKind.BUNDLE, 0.0),)
