"""The timeline: gaps and spans make up each slot's time, and the critical chain is one."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mesh.state.dependencies import Barriers
from mesh.views import timeline
from mesh.views.timeline import TOLERANCE_SECONDS, Span, Spans, critical, document, gaps
from protocols.ids import PeerId
from protocols.manifests import Dependency

W, V = PeerId("w"), PeerId("v")


@st.composite
def filled(draw: st.DrawFn) -> Spans:
    """Slots whose spans follow one another, tests numbered as they come; now and then two overlap a little."""
    spans, test = Spans(), 0
    for slot in range(draw(st.integers(1, 4))):
        at = 1000.0 + draw(st.integers(0, 20)) / 4
        for _ in range(draw(st.integers(0, 12))):
            seconds = draw(st.integers(0, 12)) / 4
            spans.add(W if slot % 2 else V, slot, Span(test, at, seconds, 0, 1))
            at += seconds + draw(st.sampled_from([0.0, 0.0, 0.25, 3.0, -0.25]))
            test += 1
    return spans


@given(filled(), st.sampled_from([0.01, 0.3, 2.0]))
def test_gaps_and_spans_make_up_the_time_of_a_slot(spans: Spans, least: float) -> None:
    everything = [span for slot in spans.by_slot().values() for span in slot]
    if not everything:
        return
    first, last = min(span.start for span in everything), max(span.end for span in everything)
    for slot in spans.by_slot().values():
        found = list(gaps(slot, first, last, least))
        assert all(seconds >= least for _, seconds in found)
        for at, seconds in found:
            assert not any(span.start < at + seconds and span.end > at for span in slot)
        every = sum(seconds for _, seconds in gaps(slot, first, last, 1e-9))
        steps = sorted({first, last, *(span.start for span in slot), *(span.end for span in slot)})
        free = sum(
            b - a for a, b in itertools.pairwise(steps)
            if not any(span.start <= a and span.end >= b for span in slot)
        )  # fmt: skip
        assert abs(every - free) < 1e-6


@given(filled(), st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 9)] * 2), max_size=4))
def test_the_critical_chain_leads_to_the_last_end(spans: Spans, waits: list[tuple[int, int, int, int]]) -> None:
    barriers = Barriers([Dependency(first, count, on, on_count) for first, on, count, on_count in waits])
    by_slot = spans.by_slot()
    chain = critical(by_slot, barriers.waits_for)
    everything = {span.test: (slot, span) for slot, found in by_slot.items() for span in found}
    assert bool(chain) == bool(everything)
    if not chain:
        return
    assert chain[-1].end == max(span.end for _, span in everything.values())
    for before, after in itertools.pairwise(chain):
        assert before.end <= after.start + TOLERANCE_SECONDS
        same = everything[before.test][0] == everything[after.test][0]
        ranges = barriers.waits_for(after.test)
        assert same or any(first <= before.test < first + count for first, count in ranges)
    first = chain[0]
    earlier = [span for span in by_slot[everything[first.test][0]] if span.end < first.start]
    assert not earlier, "the chain goes back as far as it can"


def test_the_document() -> None:
    spans = Spans()
    spans.add(W, 0, Span(0, 100.0, 2.0, 0, 1))
    spans.add(W, 0, Span(1, 105.0, 5.0, 1, 2))
    spans.add(V, 1, Span(2, 101.0, 3.5, 0, 1))
    depends = Barriers([Dependency(1, 1, 2, 1)]).waits_for
    made = document("7", 99.0, 112.5, 3, spans, {W: "b", V: "a"}, depends)
    assert (made["start"], made["end"], made["first"], made["last"]) == (99.0, 112.5, 1.0, 11.0)
    assert [(slot["name"], slot["slot"], slot["spans"]) for slot in made["slots"]] == [
        ("a", 1, [[2, 2.0, 3.5, 0, 1]]),
        ("b", 0, [[0, 1.0, 2.0, 0, 1], [1, 6.0, 5.0, 1, 2]]),
    ]
    assert made["critical"] == [2, 1]
    assert made["idle"][0] == {"worker": V, "slot": 1, "start": 5.5, "seconds": 5.5}
    assert sorted(gap["seconds"] for gap in made["idle"]) == [1.0, 3.0, 5.5]
    empty = document("7", 99.0, None, 3, Spans(), {}, depends)
    assert (empty["end"], empty["slots"], empty["critical"]) == (None, [], [])


def test_spans_are_bounded() -> None:
    spans = Spans()
    for test in range(timeline.SPANS_MAX):
        assert not spans.full
        spans.add(W, 0, Span(test, 100.0 + test, 1.0, 0, 300))
    assert spans.full
    made = document("7", 99.0, None, timeline.SPANS_MAX, spans, {}, lambda test: ())
    assert len(made["critical"]) == timeline.SPANS_MAX
