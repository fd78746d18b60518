"""The pinset: what runs name is pinned as they name it, what users pin is theirs, and what an open run needs stays."""

import pytest
from state_builder import ALICE, BOB, MANIFEST, Builder, complete

from mesh.state import pinset
from mesh.state.invariants import check
from mesh.state.model import CoordinatorState, Pin, Run, Task
from mesh.state.rebirth import reborn
from protocols.codec import encode
from protocols.commands import (
    PINS_PER_COMMAND_MAX,
    REPLICAS_MAX,
    Cancel,
    Finish,
    PinKind,
    PinReference,
    PinRoot,
    Placed,
    Placement,
    RaiseFormat,
    Submit,
    Unpin,
    Yield,
)
from protocols.ids import Cid, PeerId
from protocols.raft import ENTRY_BYTES_MAX, LOG_FORMAT_NEWEST

BUNDLE, REPORT, MINE = Cid("bafybundle"), Cid("bafyreport"), Cid("bafymine")


@pytest.fixture
def builder() -> Builder:
    made = Builder()
    made.accept(RaiseFormat(pinset.LOG_FORMAT_MIN))
    return made


def kinds(builder: Builder) -> dict[Cid, list[str]]:
    return {root: [reason.kind.value for reason in pin.reasons] for root, pin in sorted(builder.state.pins.items())}


def finished(builder: Builder, number: int = 0, **changes: object) -> Run:
    run = builder.running(Task(0, 1), nonce=b"%d" % number, **changes)
    builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0))
    builder.accept(Finish(run.id, Cid(f"{REPORT}{number}"), 0, 200.0 + number))
    return run


def reference(pin: Pin, kind: PinKind) -> PinReference:
    return PinReference(pin.root, kind, next(reason.since for reason in pin.reasons if reason.kind is kind))


def test_what_a_run_names_is_pinned_when_it_names_it(builder: Builder) -> None:
    run = builder.submit(selection=Cid("bafyselection"))
    assert kinds(builder) == {BUNDLE: ["bundle"], Cid("bafyselection"): ["selection"]}
    other = finished(builder)
    assert kinds(builder) == {
        BUNDLE: ["bundle"],
        MANIFEST: ["manifest"],
        Cid("bafyreport0"): ["report"],
        Cid("bafyselection"): ["selection"],
    }
    report = builder.state.pins[Cid("bafyreport0")]
    assert (report.wanted, report.reasons[0].run, report.reasons[0].since) == (2, other.id, 200.0)
    assert report.reasons[0].text == f"report of run {other.id}"
    bundle = builder.state.pins[BUNDLE].reasons[0]
    assert bundle.run == other.id, "the newest run that names it"
    builder.grant(run.id, BOB)
    assert builder.state.pins[BUNDLE].reasons[0].run == other.id


def test_a_log_without_a_pinset_gets_one_when_every_member_can_read_it() -> None:
    builder = Builder()
    ended, open_run = finished(builder), builder.running(Task(0, 1), nonce=b"open")
    assert not builder.state.pins
    assert "older version" in builder.reject(PinRoot(MINE, 2, "user", 1.0))
    builder.accept(RaiseFormat(LOG_FORMAT_NEWEST))
    assert builder.state.pins.keys() == {ended.spec.bundle, MANIFEST, Cid("bafyreport0"), open_run.spec.bundle}


def test_a_mesh_that_is_founded_anew_has_the_pins_of_its_runs() -> None:
    builder = Builder()
    finished(builder)
    state = reborn(builder.state, "anew", builder.index)
    assert state.format == LOG_FORMAT_NEWEST
    assert Cid("bafyreport0") in state.pins


def test_users_and_runs_pin_the_same_without_getting_in_each_others_way(builder: Builder) -> None:
    run = finished(builder)
    builder.accept(PinRoot(BUNDLE, 3, "mine", 5.0))
    pin = builder.state.pins[BUNDLE]
    assert (kinds(builder)[BUNDLE], pin.wanted) == (["bundle", "user"], 3)
    builder.accept(Unpin((reference(pin, PinKind.USER),)))
    assert (kinds(builder)[BUNDLE], builder.state.pins[BUNDLE].wanted) == (["bundle"], 2)
    builder.accept(PinRoot(BUNDLE, 3, "mine", 5.0))
    builder.accept(Unpin((reference(builder.state.pins[BUNDLE], PinKind.BUNDLE),)))
    assert kinds(builder)[BUNDLE] == ["user"]
    assert run.report is not None
    builder.accept(Unpin((reference(builder.state.pins[run.report], PinKind.REPORT),)))
    assert run.report not in builder.state.pins


def test_what_an_open_run_needs_stays_pinned(builder: Builder) -> None:
    run = builder.running(Task(0, 1))
    pins = [
        reference(builder.state.pins[BUNDLE], PinKind.BUNDLE),
        reference(builder.state.pins[MANIFEST], PinKind.MANIFEST),
    ]
    assert "open run" in builder.reject(Unpin(tuple(pins)))
    builder.accept(Cancel(run.id, "enough"))
    assert "open run" in builder.reject(Unpin(tuple(pins))), "its report is to be built"
    builder.accept(Finish(run.id, None, 2, 9.0))
    builder.accept(Unpin(tuple(pins)))
    assert not builder.state.pins


def test_a_reason_that_was_given_anew_is_not_taken_away(builder: Builder) -> None:
    run = finished(builder)
    stale = reference(builder.state.pins[BUNDLE], PinKind.BUNDLE)
    again = builder.accept(Submit(b"again", run.spec, 500.0)).run
    assert again is not None
    builder.accept(Cancel(again, "enough"))
    builder.accept(Finish(again, None, 2, 600.0))
    assert builder.reject(Unpin((stale,)))
    assert BUNDLE in builder.state.pins


def test_what_several_say_of_holders_adds_up(builder: Builder) -> None:
    builder.accept(PinRoot(MINE, 2, "user", 1.0))
    builder.accept(Placed((Placement(MINE, (BOB, ALICE), (), 10),)))
    builder.accept(Placed((Placement(MINE, (PeerId("carol"),), (ALICE,)), Placement(Cid("bafyunknown"), (BOB,)))))
    assert builder.state.pins[MINE].holders == ("bob", "carol")
    assert builder.state.pins[MINE].size == 10, "a size that is not known changes nothing"
    builder.accept(PinRoot(MINE, 1, "user", 2.0))
    assert builder.state.pins[MINE].holders == ("bob", "carol"), "pinned again, it is where it was"
    assert builder.reject(Placed((Placement(Cid("bafyunknown"), (BOB,)),)))


def test_what_users_pin_is_checked(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not 0" in builder.reject(PinRoot(MINE, 0, "user", 1.0))
    assert f"not {REPLICAS_MAX + 1}" in builder.reject(PinRoot(MINE, REPLICAS_MAX + 1, "user", 1.0))
    assert "characters" in builder.reject(PinRoot(MINE, 2, "x" * 201, 1.0))
    monkeypatch.setattr(pinset, "USER_PINS_MAX", 1)
    builder.accept(PinRoot(MINE, 2, "user", 1.0))
    builder.accept(PinRoot(MINE, 3, "user", 1.0))
    assert "1 roots already" in builder.reject(PinRoot(BUNDLE, 2, "user", 1.0))
    other = Builder()
    other.accept(RaiseFormat(LOG_FORMAT_NEWEST))
    other.accept(Yield("elsewhere"))
    assert "gave way" in other.reject(PinRoot(MINE, 2, "user", 1.0))


def test_a_full_pinset_lets_go_of_what_is_oldest_and_reports_last(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinset, "PINS_MAX", 6)
    for number in range(2):
        finished(builder, number, bundle=Cid(f"bafyb{number}"))
    builder.accept(PinRoot(MINE, 2, "user", 0.0))
    assert len(builder.state.pins) == 6
    finished(builder, 2, bundle=Cid("bafyb2"))
    assert builder.state.pins.keys() == {
        MINE, Cid("bafyreport0"), Cid("bafyreport1"), Cid("bafyreport2"), Cid("bafyb1"), Cid("bafyb2")
    }  # fmt: skip
    builder.submit(b"next", bundle=Cid("bafyb3"))
    builder.submit(b"last", bundle=Cid("bafyb4"))
    assert builder.state.pins.keys() == {
        MINE, Cid("bafyreport0"), Cid("bafyreport1"), Cid("bafyreport2"), Cid("bafyb3"), Cid("bafyb4")
    }  # fmt: skip
    builder.submit(b"more", bundle=Cid("bafyb5"))
    assert Cid("bafyreport0") not in builder.state.pins


def test_what_is_named_is_what_no_collection_may_remove(builder: Builder) -> None:
    run = builder.running(Task(0, 2))
    chunk = complete(builder.grant(run.id, ALICE, Task(0, 2)), 0)
    builder.accept(chunk)
    run.values["name"] = Cid("bafkvalue")
    assert pinset.named(builder.state) == {BUNDLE, MANIFEST, chunk.chunk, Cid("bafkvalue")}
    builder.accept(Cancel(run.id, "enough"))
    builder.accept(Finish(run.id, REPORT, 2, 9.0))
    assert pinset.named(builder.state) == {BUNDLE, MANIFEST, REPORT}, "the report has what was in the chunks"


def test_a_full_command_fits_an_entry() -> None:
    peers = tuple(PeerId("12D3KooW" + f"{number:044}") for number in range(REPLICAS_MAX + 1))
    placement = Placement(Cid("bafybei" + "a" * 52), peers, peers, 2**62)
    assert len(encode(Placed((placement,) * PINS_PER_COMMAND_MAX))) < ENTRY_BYTES_MAX


def test_damage_is_noticed(builder: Builder) -> None:
    def broken(state: CoordinatorState) -> bool:
        try:
            check(state)
        except AssertionError:
            return True
        return False

    builder.submit()
    pin = builder.state.pins.pop(BUNDLE)
    assert broken(builder.state), "an open run's bundle is pinned"
    builder.state.pins[BUNDLE] = Pin(BUNDLE, pin.reasons, (BOB, ALICE))
    assert broken(builder.state), "in no order"
    builder.state.pins[BUNDLE] = Pin(BUNDLE, ())
    assert broken(builder.state), "for nothing"
    builder.state.pins[BUNDLE] = pin
    assert not broken(builder.state)
