"""Logs as JSON: one event a line, whatever is in it."""

import json
import logging
import sys

from mesh.cli.logging_setup import JsonFormatter


def event(formatter: JsonFormatter, message: str, *arguments: object, error: bool = False) -> dict[str, object]:
    cause = None
    if error:
        try:
            raise ValueError("two\nlines \u2028 and more")
        except ValueError:
            cause = sys.exc_info()
    record = logging.LogRecord("mesh.x", logging.WARNING, "x.py", 1, message, arguments, cause)
    line = formatter.format(record)
    assert len(line.splitlines()) == 1
    return dict(json.loads(line))


def test_an_exception_is_one_line() -> None:
    formatter = JsonFormatter()
    told = event(formatter, "run %d can't be\nclosed", 17, error=True)
    assert (told["message"], told["run"], told["level"]) == ("run 17 can't be\nclosed", "17", "warning")
    assert "ValueError: two\nlines" in str(told["exception"])


def test_the_node_is_named_once_it_is_known() -> None:
    formatter = JsonFormatter()
    assert "node" not in event(formatter, "prerun 5")
    formatter.peer = "12D3KooW"
    assert event(formatter, "%s", "lease 4 of run 12").items() >= {"node": "12D3KooW", "run": "12"}.items()
