"""How a run looks while it runs: a live bar on a terminal, plain lines in a pipe, JSON events, or nothing.

What is live (`run_screen.py`) reads the tally when the screen is redrawn, ten times a second, so a verdict costs no
drawing.
"""

import sys
from typing import Any, Protocol

from mesh.cli.client import Client
from mesh.cli.output import is_terminal, painted, print_json
from mesh.cli.tally import Tally
from mesh.views import human

PLAIN_SECONDS = 10.0
"""A line at least that often, while verdicts come."""

PLAIN_SECONDS_LEAST = 1.0
"""Between two lines, when verdicts come in a burst."""

PLAIN_STEPS = 10

MODES = ("auto", "bar", "plain", "off")


class View(Protocol):
    """Told of each event after the tally was. `close` leaves the screen in order; calling it twice is harmless."""

    def event(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def view(
    mode: str,
    as_json: bool,
    tally: Tally,
    client: Client | None = None,
    whole: bool = False,
    already: float = 0.0,
) -> View:
    """`client`: asked for what events do not tell. `whole`: on a terminal, the whole screen is taken; `already`:
    seconds that the run was open before `tally` began."""
    if as_json:
        return JsonView()
    if mode == "auto":
        mode = "bar" if is_terminal(sys.stdout) else "plain"
    if mode == "off":
        return SilentView()
    if mode == "plain":
        return PlainView(tally)
    from mesh.cli.run_screen import RunView

    return RunView(tally, client, whole and is_terminal(sys.stdout), already)


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


def position(tally: Tally) -> str:
    """ "690 of 6,908 tests, 2 failed"."""
    total = tally.total or 0
    parts = [f"{human.number(tally.done)} of {human.plural(total, 'test')}"]
    parts += [
        f"{human.number(tally.counts[outcome])} {outcome}" for outcome in ("failed", "error") if tally.counts[outcome]
    ]
    return ", ".join(parts)


def time_left(tally: Tally, elapsed: float) -> str:
    """By the pace so far; nothing while that tells little. `elapsed`: seconds since the run's submission."""
    if not tally.total or tally.done < 3 or elapsed < 1:
        return ""
    if tally.done >= tally.total:
        return ", the report is being made"
    return f", {clock(elapsed / tally.done * (tally.total - tally.done))} left"


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
