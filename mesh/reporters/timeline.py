"""Who did what when, as lanes of bars: one for each slot of each worker, by the workers' own clocks.

Bars too thin to be told apart are drawn as one, so that a lane has no more of them than a screen has columns; bad tests
are drawn above the others and are never merged away.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from mesh.reporters.model import BAD, OUTCOMES, Report
from mesh.views import human

WIDTH = 1000.0
"""Of a lane, in the drawing's own units."""
THIN = 1.0
"""Bars of one outcome are merged where they, and the gap between them, are thinner."""
LANES_MAX = 200
NAMED_MIN = 3.0
"""Bars of this width say which test they are."""


@dataclass(slots=True)
class Bar:
    """`start` and `end` in units of `WIDTH`; `test`: of one that stands for itself."""

    start: float
    end: float
    outcome: str
    test: str = ""


def lanes(report: Report) -> tuple[dict[tuple[str, int], list[Bar]], float]:
    """Bars by (worker's name, slot), and what the whole width is in seconds; of tests that ran in this run."""
    spans = sorted(
        (
            record["started"],
            record["started"] + record["duration"],
            record["test"],
            record["worker"],
            record["slot"],
            record["outcome"],
        )
        for record in report.records()
        if record["worker"] and record["started"] > 0 and record["phases"] and record["outcome"] in OUTCOMES
        if not record.get("reused")
    )
    if not spans:
        return {}, 0.0
    begin, seconds = spans[0][0], max(max(end for _, end, *_ in spans) - spans[0][0], 1e-6)
    hosts = {worker: report.host(worker) for _, _, _, worker, _, _ in spans}
    scale = WIDTH / seconds
    found: dict[tuple[str, int], list[Bar]] = {}
    for start, end, test, worker, slot, outcome in spans:
        lane = found.setdefault((hosts[worker], slot), [])
        lane.append(Bar((start - begin) * scale, (end - begin) * scale, outcome, test))
    return {name: _merged(found[name]) for name in sorted(found)}, seconds


def _merged(bars: Iterable[Bar]) -> list[Bar]:
    """Of one lane, in the order of their starts; bad ones come last, so that they are drawn above."""
    kept: list[Bar] = []
    bad: list[Bar] = []
    for bar in bars:
        last = kept[-1] if kept else None
        if bar.outcome in BAD:
            bad.append(bar)
        elif (
            last is not None
            and last.outcome == bar.outcome
            and bar.start - last.end < THIN
            and bar.end - bar.start < THIN
            and (not last.test or last.end - last.start < THIN)
        ):
            last.end, last.test = max(last.end, bar.end), ""
        else:
            kept.append(bar)
    return kept + bad


def timeline(report: Report) -> Iterator[str]:
    """As HTML."""
    found, seconds = lanes(report)
    yield '<section aria-labelledby="timeline"><h2 id="timeline">Timeline</h2>\n'
    if not found:
        yield '<p class="dim">No test ran.</p></section>\n'
        return
    yield '<p class="dim">Each line is a slot of a worker; a gap is a time in which it had nothing to run.</p>\n'
    for (host, slot), bars in list(found.items())[:LANES_MAX]:
        name = f"{host} · {slot}"
        busy = sum(bar.end - bar.start for bar in bars) / WIDTH
        label = f"{name}: busy {min(busy, 1):.0%} of {human.duration(seconds)}"
        yield f'<div class="lane"><span title="{escape(name)}">{escape(name)}</span>'
        yield f'<svg viewBox="0 0 1000 18" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        yield "".join(map(_drawn, bars)) + "</svg></div>\n"
    if len(found) > LANES_MAX:
        yield f'<p class="dim">And {human.plural(len(found) - LANES_MAX, "slot")} more.</p>\n'
    marks = "".join(f"<span>{human.duration(seconds * part / 4)}</span>" for part in range(5))
    yield f'<div class="lane"><span></span><div class="axis">{marks}</div></div></section>\n'


def _drawn(bar: Bar) -> str:
    width = max(bar.end - bar.start, 1.2 if bar.outcome in BAD else 0.4)
    title = f"<title>{escape(human.clean(bar.test))}</title>" if bar.test and width >= NAMED_MIN else ""
    place = f'x="{bar.start:.1f}" width="{width:.1f}" height="18"'
    return f'<rect class="{bar.outcome}" {place}>{title}</rect>' if title else f'<rect class="{bar.outcome}" {place}/>'
