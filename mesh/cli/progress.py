"""How a run looks while it runs: a live bar on a terminal, plain lines in a pipe, JSON events, or nothing.

The bar reads the tally when the screen is redrawn, ten times a second, so a verdict costs no drawing.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mesh.cli.output import is_terminal, painted, print_json
from mesh.cli.tally import Tally
from mesh.views import human

PLAIN_SECONDS = 10.0
"""A line at least that often, while verdicts come."""

PLAIN_SECONDS_LEAST = 1.0
"""Between two lines, when verdicts come in a burst."""

PLAIN_STEPS = 10

RUNNING_LINES_MAX = 4
NAME_COLUMNS = 20

MODES = ("auto", "bar", "plain", "off")

Names = Callable[[], Mapping[str, str]]


class View(Protocol):
    """Told of each event after the tally was. `close` leaves the screen in order; calling it twice is harmless."""

    def event(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def view(mode: str, as_json: bool, tally: Tally, names: Names = dict) -> View:
    """`names`: asks for the names of workers, by peer."""
    if as_json:
        return JsonView()
    if mode == "auto":
        mode = "bar" if is_terminal(sys.stdout) else "plain"
    if mode == "off":
        return SilentView()
    return BarView(tally, names) if mode == "bar" else PlainView(tally)


class JsonView:
    def event(self, event: dict[str, Any]) -> None:
        print_json({name: value for name, value in event.items() if name != "cursor"})

    def close(self) -> None:
        pass


class SilentView:
    def event(self, event: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class PlainView:
    """Failures as they come; how far it is at every tenth, and now and then."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._step = 0
        self._last = tally.elapsed

    def event(self, event: dict[str, Any]) -> None:
        if event["event"] == "verdict":
            line = failure_line(event)
            if line:
                self.say(line)
            self._percentage()
        else:
            line = opening_line(event)
            if line:
                self.say(line)

    def say(self, line: str) -> None:
        print(line, flush=True)

    def _percentage(self) -> None:
        tally = self._tally
        if not tally.total:
            return
        step = tally.done * PLAIN_STEPS // tally.total
        waited = tally.elapsed - self._last
        if (
            (step > self._step and waited >= PLAIN_SECONDS_LEAST)
            or waited >= PLAIN_SECONDS
            or tally.done == tally.total
        ):
            self._step, self._last = step, tally.elapsed
            percent = 100 * tally.done // tally.total
            self.say(f"[{percent:3d}%] {position(tally)} in {clock(tally.elapsed)}")

    def close(self) -> None:
        pass


class BarView:
    """rich's live display: bar, counts, time left, and what runs longest, and where."""

    def __init__(self, tally: Tally, names: Names) -> None:
        from rich.console import Console
        from rich.live import Live

        self._tally = tally
        self._ask = names
        self._names: dict[str, str] = {}
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.draw = _bar(tally, self._names)
        self._live = Live(
            console=self._console,
            get_renderable=self.draw,
            refresh_per_second=10,
            transient=True,
            redirect_stderr=False,
        )
        self._live.start()

    def event(self, event: dict[str, Any]) -> None:
        if event["event"] == "started" and event["worker"] not in self._names:
            self._names.setdefault(event["worker"], "")  # asked for once
            self._names.update(self._ask())
        line = failure_line(event) if event["event"] == "verdict" else opening_line(event)
        if line:
            self._console.print(line, style="red" if event["event"] == "verdict" else None)

    def close(self) -> None:
        self._live.stop()


def _bar(tally: Tally, workers: Mapping[str, str]) -> Callable[[], Any]:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    waiting = Spinner("dots", style="cyan")

    def draw() -> Any:
        if not tally.total:
            waiting.text = Text(f"waiting for its tests to be collected · {clock(tally.elapsed)}")
            return waiting
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        style = "red" if tally.bad else "green"
        bar = ProgressBar(total=tally.total, completed=tally.done, width=30, complete_style=style, finished_style=style)
        line.add_row(bar, Text(f"{position(tally)} · {clock(tally.elapsed)}{time_left(tally)}"))
        running = list(tally.running.items())[:RUNNING_LINES_MAX]
        more = len(tally.running) - len(running)
        named = [(human.clean(test), human.short(workers.get(worker, ""), NAME_COLUMNS)) for test, worker in running]
        room = max((len(name) for _, name in named), default=0)
        lines = [
            Text(f"  {name:<{room}}{'  ' if room else ''}{test}", style="dim", no_wrap=True, overflow="ellipsis")
            for test, name in named
        ]
        if more:
            lines.append(Text(f"  and {more} more", style="dim"))
        return Group(line, *lines)

    return draw


def position(tally: Tally) -> str:
    """ "690 of 6,908 tests, 2 failed"."""
    total = tally.total or 0
    parts = [f"{human.number(tally.done)} of {human.plural(total, 'test')}"]
    parts += [
        f"{human.number(tally.counts[outcome])} {outcome}" for outcome in ("failed", "error") if tally.counts[outcome]
    ]
    return ", ".join(parts)


def time_left(tally: Tally) -> str:
    """By the pace so far; nothing while that tells little."""
    if not tally.total or tally.done < 3 or tally.elapsed < 1:
        return ""
    if tally.done >= tally.total:
        return ", the report is being made"
    return f", {clock(tally.elapsed / tally.done * (tally.total - tally.done))} left"


def clock(seconds: float) -> str:
    """Whole seconds: what is looked at ten times a second must not flicker."""
    return f"{seconds:.0f} s" if seconds < 59.5 else human.duration(seconds)


def opening_line(event: dict[str, Any]) -> str:
    if event["event"] == "submitted":
        return f"run {event['run']}"
    if event["event"] == "collected":
        return f"{human.plural(event['tests'], 'test')} collected"
    return ""


def failure_line(event: dict[str, Any]) -> str:
    if event["outcome"] not in ("failed", "error"):
        return ""
    word = "FAILED" if event["outcome"] == "failed" else "ERROR"
    return f"{word} {human.clean(event['test'])}"


def painted_failure(event: dict[str, Any], tail: str) -> str:
    """The line of the short summary."""
    line = failure_line(event)
    word, _, rest = line.partition(" ")
    return f"{painted(word, 'red')} {rest}{tail}"
