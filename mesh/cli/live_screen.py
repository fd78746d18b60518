"""The mesh on a terminal, drawn anew a few times a second: who is here, who leads, what runs, what fails, what waits.

It takes the whole screen and gives it back as it was. Every part gets the lines that there is room for, the most urgent
first; colours only repeat what words and marks say, and NO_COLOR leaves them out. What is drawn comes from a `Watching`
that another thread may change: whoever draws holds the lock.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mesh.views import human
from mesh.views.watching import Watching, position

REFRESHES_PER_SECOND = 4
NARROW = 78
"""Columns under which less is shown of each node and run."""
FINISHED_MAX = 5
NAME_COLUMNS = 24
BAR_COLUMNS = 16
RANKS = ("running", "reporting", "collecting", "queued")

GOOD, BAD, DOUBTFUL, QUIET = "green", "bold red", "yellow", "dim"

_STATES = {"alive": GOOD, "suspect": DOUBTFUL, "draining": DOUBTFUL, "dead": BAD}
_ENDS = {"passed": ("+", GOOD), "failed": ("x", BAD), "error": ("!", BAD), "cancelled": ("-", QUIET)}


class Screen:
    """A context manager: while inside, the terminal shows `watching`."""

    def __init__(self, watching: Watching, lock: threading.Lock, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._live = Live(
            Picture(watching, lock),
            console=self._console,
            screen=True,
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stderr=False,
            redirect_stdout=False,
        )

    def __enter__(self) -> "Screen":
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)


class Picture:
    """What the screen shows, for as much room as there is."""

    def __init__(self, watching: Watching, lock: threading.Lock) -> None:
        self._watching = watching
        self._lock = lock

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            drawn = list(self._parts(options.max_width, options.height or console.size.height, time.time()))
        yield Group(*drawn)

    def _parts(self, width: int, height: int, now: float) -> Iterator[RenderableType]:
        watching = self._watching
        yield _head(watching, now)
        runs, nodes = watching.open_runs(), watching.nodes
        rows = shares(
            height - 2,
            [
                max(1, len(runs) + min(FINISHED_MAX, len(watching.runs) - len(runs))),
                len(watching.failures),
                len(watching.reasons),
                max(1, len(nodes)),
            ],
        )
        narrow = width < NARROW
        yield from part("RUNS", _runs(watching, rows[0], now, narrow))
        if watching.failures and rows[1]:
            yield from part("FAILING", _failures(watching, rows[1]))
        if watching.reasons and rows[2]:
            yield from part("WAITING", _reasons(watching, rows[2]))
        if rows[3]:
            yield from part("NODES", _nodes(watching, rows[3], narrow))


def shares(height: int, wanted: Sequence[int]) -> list[int]:
    """Lines for each part, its title not counted: in turn one line each, for as long as there are any."""
    given = [0] * len(wanted)
    left = height
    while True:
        before = left
        for number, most in enumerate(wanted):
            cost = 1 if given[number] else 3  # a blank line and a title before the first
            if given[number] < most and left >= cost:
                given[number] += 1
                left -= cost
        if left == before:
            return given


def part(title: str, lines: RenderableType) -> Iterator[RenderableType]:
    """With its title, and a blank line before it."""
    yield Text()
    yield Text(title, style="bold")
    yield lines


def _head(watching: Watching, now: float) -> RenderableType:
    mesh = watching.mesh
    if watching.lost_at is not None:
        old = human.duration(max(1.0, now - watching.lost_at))
        return line(f"NO ANSWER from this node, trying again; what follows is {old} old", BAD)
    if mesh.get("agreed") is False:
        old = human.duration(max(1.0, now - float(mesh.get("as_of") or now)))
        return line(f"NO QUORUM, nothing is decided; what follows is what this node knew {old} ago", BAD)
    nodes = watching.nodes
    states = [str(node.get("state")) for node in nodes]
    here = [node for node in nodes if node.get("state") != "dead"]
    busy, slots = (sum(int(node.get(key) or 0) for node in here) for key in ("busy", "slots"))
    leader = watching.name_of(mesh.get("coordinator")) or "nobody"
    head = Text(f"mesh {human.mesh(watching.name)}", style="bold", no_wrap=True, overflow="ellipsis")
    head.append(f"  {leader} leads", style="bold" if mesh.get("coordinator") else BAD)
    head.append(f", term {mesh.get('term')}  {human.plural(states.count('alive'), 'node')}", style="default")
    if states.count("dead"):
        head.append(f", {states.count('dead')} dead", style=BAD)
    head.append(f"  {busy} of {human.plural(slots, 'slot')} busy", style="default")
    if mesh.get("conflicts"):
        head.append("  another mesh is here, too", style=DOUBTFUL)
    return head


def line(text: str, style: str) -> Text:
    """Cut where the screen ends."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


LAST: dict[str, Any] = {"ratio": 1}
"""The last column has what the others leave: what is too long is cut there."""


def grid(*columns: dict[str, Any]) -> Table:
    """Columns side by side, as wide as the screen; a cell has one line."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for column in columns:
        table.add_column(**{"no_wrap": True, "overflow": "ellipsis", **column})
    return table


def _runs(watching: Watching, room: int, now: float, narrow: bool) -> RenderableType:
    running = watching.open_runs()
    running.sort(key=lambda run: RANKS.index(run["state"]))  # those of one state stay as they are: the oldest first
    shown = running[:room]
    done = watching.finished_runs(min(FINISHED_MAX, room - len(shown)))
    if not shown and not done:
        return line("none yet: mesh run PATH submits one", QUIET)
    table = grid({}, {}, {"min_width": BAR_COLUMNS // 2 if narrow else BAR_COLUMNS}, {}, LAST)
    name_columns = 12 if narrow else NAME_COLUMNS
    for run in shown:
        table.add_row(*_open_run(watching, run, now, narrow))
    for run in done:
        mark, style = _ENDS.get(str(run.get("state")), ("?", QUIET))
        reason = human.clean(str(run.get("reason") or "")) if run.get("state") != "passed" else ""
        end = reason or f"took {human.duration(float(run.get('wall_seconds') or 0.0))}"
        table.add_row(
            Text(f"{mark} {run['run']}", style=style),
            Text(human.short(str(run.get("name") or ""), name_columns)),
            Text(str(run.get("state")), style=style),
            Text(_position(run, narrow), style=QUIET),
            Text(end, style=QUIET),
        )
    return table


def _open_run(watching: Watching, run: dict[str, Any], now: float, narrow: bool) -> list[RenderableType]:
    bad = _bad(run)
    total, done = int(run.get("tests") or 0), int(run.get("done") or 0)
    style = BAD if bad else GOOD
    if run.get("state") == "running" and total:
        columns = BAR_COLUMNS // 2 if narrow else BAR_COLUMNS
        where: RenderableType = bar(done, total, columns, style)
    else:
        where = Text(str(run.get("state") or ""), style=DOUBTFUL)
    left = watching.seconds_left(run, now)
    text = Text(_position(run, narrow), style=BAD if bad else "") if total else Text("tests not known yet", style=QUIET)
    return [
        Text(f"> {run['run']}", style="bold"),
        Text(human.short(str(run.get("name") or ""), 12 if narrow else NAME_COLUMNS), style="bold"),
        where,
        text,
        Text(f"{human.duration(round(left) or 1)} left" if left is not None else "", style="cyan"),
    ]


def _position(run: dict[str, Any], narrow: bool) -> str:
    if not narrow:
        return position(run)
    done, bad = run.get("done") or sum((run.get("counts") or {}).values()), _bad(run)
    return f"{done}/{run.get('tests') or 0}{f', {bad} bad' if bad else ''}"


def _bad(run: dict[str, Any]) -> int:
    counts = run.get("counts") or {}
    return int(counts.get("failed") or 0) + int(counts.get("error") or 0)


def bar(done: int, total: int, columns: int, style: str) -> Text:
    """Without colours, too, one sees how far it is."""
    full = columns * done // total
    return Text("\N{FULL BLOCK}" * full, style=style).append("\N{LIGHT SHADE}" * (columns - full), style=QUIET)


def _failures(watching: Watching, room: int) -> RenderableType:
    table = grid({}, {}, LAST)
    for one in list(reversed(watching.failures))[:room]:
        word = "FAILED" if one.outcome == "failed" else "ERROR"
        where = watching.name_of(one.worker)
        table.add_row(
            Text(word, style=BAD),
            Text(f"run {one.run}" + (f" on {where}" if where else ""), style=QUIET),
            Text(human.clean(one.test) or f"test {one.index + 1}"),
        )
    return table


def _reasons(watching: Watching, room: int) -> RenderableType:
    table = grid({"justify": "right"}, LAST)
    for one in watching.reasons[:room]:
        tests, text = human.number(int(one.get("tests") or 0)), human.clean(str(one.get("text") or ""))
        table.add_row(Text(tests, style=DOUBTFUL), Text(text))
    return table


def _nodes(watching: Watching, room: int, narrow: bool) -> RenderableType:
    nodes = watching.nodes
    shown = nodes if len(nodes) <= room else nodes[: max(1, room - 1)]
    table = grid({}, {}, {}, {"justify": "right"}, {"justify": "right"}, LAST)
    leader, voters = watching.mesh.get("coordinator"), set(watching.mesh.get("voters") or ())
    for node in shown:
        peer, state, load = node.get("peer"), str(node.get("state")), node.get("load") or {}
        part = "leads" if peer == leader else "votes" if peer in voters else str(node.get("role") or "")
        gone = state == "dead"
        cells = [
            Text(("* " if peer == leader else "  ") + human.short(str(node.get("name") or ""), NAME_COLUMNS)),
            Text(state, style=_STATES.get(state, "")),
            Text(part, style="bold" if peer == leader else QUIET),
            Text("" if gone else f"{node.get('busy') or 0}/{node.get('slots') or 0} busy"),
        ]
        if not narrow and not gone:
            cpu, memory = load.get("cpu.percent"), load.get("memory.available")
            cells.append(Text(f"cpu {cpu:.0f}%" if cpu is not None else "", style=QUIET))
            cells.append(Text(f"{human.size(memory)} free" if memory is not None else "", style=QUIET))
        table.add_row(*cells, style=QUIET if gone else "")
    if len(shown) < min(len(nodes), room):
        table.add_row(Text(f"  and {len(nodes) - len(shown)} more", style=QUIET))
    return table
