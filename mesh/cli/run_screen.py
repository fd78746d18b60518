"""One run on a terminal, live: how far it is, what runs where and for how long, what waits and why, what failed.

`mesh run` and its kin draw it under what they have printed, a few lines, with failures going by above; `mesh watch RUN`
takes the whole screen and gives it back as it was. Either is cut to the terminal. The tally tells how far the run is;
beside the events one thread asks now and then for what they do not tell.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mesh.cli.client import Client
from mesh.cli.feed import keep_asking
from mesh.cli.live_screen import BAD, DOUBTFUL, LAST, QUIET, grid, line, part, shares
from mesh.cli.progress import clock, failure_line, opening_line, position, time_left
from mesh.cli.tally import Tally
from mesh.views import human
from mesh.views.run_watching import RUNNING_MAX, RunWatching

REFRESHES_PER_SECOND = 10
BAR_COLUMNS = 30
NAME_COLUMNS = 20
FAILURES_MAX = 50
RUNNING_LINES_MAX, WAITING_LINES_MAX = 4, 3
"""Of those that share the screen with what was printed."""

WHY_SECONDS = 10.0
"""Between two looks at what would help."""


class RunView:
    """A `View`. `whole`: it takes the whole screen; `already`: seconds that the run was open before `tally` began."""

    def __init__(
        self,
        tally: Tally,
        client: Client | None = None,
        whole: bool = False,
        already: float = 0.0,
        console: Console | None = None,
    ) -> None:
        self._whole = whole
        self._tally = tally
        self._stop, self._news = threading.Event(), threading.Event()
        self._console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=not whole)
        watching = RunWatching()
        self._live = Live(
            RunPicture(tally, watching, whole, already),
            console=self._console,
            screen=whole,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stderr=False,
            redirect_stdout=False,
        )
        self._live.start()
        if client is not None:
            asking = _Asking(client, tally, watching, self._stop, self._news)
            threading.Thread(target=asking.until_stopped, daemon=True).start()

    def event(self, event: dict[str, Any]) -> None:
        self._news.set()
        said = failure_line(event) if event["event"] == "verdict" else opening_line(event)
        if said and not self._whole:
            self._console.print(said, style="red" if event["event"] == "verdict" else None)

    def close(self) -> None:
        self._stop.set()
        self._news.set()
        self._live.stop()


class _Asking:
    """Fills a `RunWatching`, in a thread of its own. What can't be had now stays as it was."""

    def __init__(
        self, client: Client, tally: Tally, watching: RunWatching, stop: threading.Event, news: threading.Event
    ) -> None:
        self._client = client
        self._tally = tally
        self._watching = watching
        self._stop = stop
        self._news = news
        self._why_at = float("-inf")
        self._looked_up: set[str] = set()

    def until_stopped(self) -> None:
        keep_asking(self._ask, self._stop, self._news)

    def _ask(self) -> None:
        run, watching = self._tally.run, self._watching
        if self._tally.total:
            rows = self._client.get(f"/api/runs/{run}/tests?outcome=running&limit={RUNNING_MAX}")
            watching.take_tests(rows, time.monotonic())
        watching.take_queue(self._client.get("/api/queue"), run, time.monotonic())
        unknown = {str(bad["worker"]) for bad in self._tally.bad[-FAILURES_MAX:]} - self._looked_up
        if unknown:
            watching.take_nodes(self._client.get("/api/status"))
            self._looked_up |= unknown
        now = time.monotonic()
        if watching.reasons and now - self._why_at > WHY_SECONDS:
            self._why_at = now
            watching.take_why(self._client.get(f"/api/why/{run}"))


class RunPicture:
    """What is shown, for as much room as there is."""

    def __init__(self, tally: Tally, watching: RunWatching, whole: bool, already: float = 0.0) -> None:
        self._tally = tally
        self._watching = watching
        self._whole = whole
        self._already = already
        self._spinner = Spinner("dots", style="cyan")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.size.height
        parts = self._screen(height) if self._whole else self._lines(height - 1)
        yield Group(self._head(options.max_width), *parts)

    def _head(self, width: int) -> RenderableType:
        tally, elapsed = self._tally, self._tally.elapsed + self._already
        before = [f"run {tally.run}"] if self._whole else []
        if not tally.total:
            waits = [*before, "waiting for its tests to be collected", clock(elapsed)]
            self._spinner.text = line(" · ".join(waits), "")
            return self._spinner
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        style = "red" if tally.bad else "green"
        columns = min(BAR_COLUMNS, max(5, width // 4))
        bar = ProgressBar(tally.total, tally.done, columns, complete_style=style, finished_style=style)
        said = [*before, position(tally), clock(elapsed) + self._time_left(elapsed)]
        table.add_row(bar, Text(" · ".join(said)))
        return table

    def _time_left(self, elapsed: float) -> str:
        """As the mesh expects it; else by the pace so far."""
        ends = self._watching.ends_at
        if ends is None or not self._tally.total or self._tally.done >= self._tally.total:
            return time_left(self._tally, elapsed)
        left = ends - time.monotonic()
        return f", {clock(left)} left" if left >= 1.0 else ""

    def _lines(self, room: int) -> Iterator[RenderableType]:
        """Under what was printed: without titles."""
        watching = self._watching
        waiting = min(WAITING_LINES_MAX, max(0, room - 2), len(watching.reasons) + len(watching.remarks))
        running = min(RUNNING_LINES_MAX, max(0, room - 1 - waiting), len(watching.running))
        if running:
            yield self._running(running)
        if waiting:
            yield self._waiting(waiting)

    def _screen(self, height: int) -> Iterator[RenderableType]:
        watching = self._watching
        bad = self._tally.bad[-FAILURES_MAX:]
        wanted = [len(bad), len(watching.reasons) + len(watching.remarks), len(watching.running)]
        rows = shares(height - 1, wanted)
        if rows[2]:
            yield from part("RUNNING", self._running(rows[2]))
        if rows[1]:
            yield from part("WAITING", self._waiting(rows[1]))
        if rows[0]:
            yield from part("FAILURES", self._failed(bad, rows[0]))

    def _running(self, room: int) -> RenderableType:
        """Those that have run longest; the last line may say how many more there are."""
        watching, now = self._watching, time.monotonic()
        running = watching.running
        shown = running if watching.running_total <= room else running[: max(1, room - 1)]
        table = grid({}, {"justify": "right"}, LAST)
        for one in shown:
            host = Text(f"  {human.short(one.host, NAME_COLUMNS)}", style=QUIET)
            table.add_row(host, Text(clock(max(0.0, now - one.since)), style="cyan"), Text(one.test))
        if len(shown) < min(watching.running_total, room):
            table.add_row(Text("  more", style=QUIET), Text(str(watching.running_total - len(shown)), style=QUIET))
        return table

    def _waiting(self, room: int) -> RenderableType:
        """What keeps most tests waiting first."""
        reasons = self._watching.reasons[:room]
        table = grid({"justify": "right"}, LAST)
        for tests, text in reasons:
            table.add_row(
                Text(f"  {human.number(tests)}", style=DOUBTFUL), Text(text if self._whole else f"waiting: {text}")
            )
        for text in self._watching.remarks[: room - len(reasons)]:
            table.add_row(Text(), Text(text, style=QUIET))
        return table

    def _failed(self, bad: list[dict[str, Any]], room: int) -> RenderableType:
        """The newest first."""
        table = grid({}, {}, LAST)
        for event in list(reversed(bad))[:room]:
            word, _, test = failure_line(event).partition(" ")
            name = self._watching.names.get(str(event["worker"]), "")
            table.add_row(Text(f"  {word}", style=BAD), Text(human.short(name, NAME_COLUMNS), style=QUIET), Text(test))
        return table
