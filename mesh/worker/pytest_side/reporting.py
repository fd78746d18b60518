"""From pytest's reports of one test to one frame for the node.

The verdict is pytest's: what the call gave, with xfail and xpass; an `error` where setup failed, or teardown after a
call that did not fail. Of a test that was run again (pytest-rerunfailures) only the last try counts; the earlier ones
stay in its phases, as "rerun". A sub-test counts when it failed: the test has then failed, whatever its own call gave.

What a test hands to us (an exception, a property) may raise when it is shown; that is said in place of the text.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
from _mesh_pytest_side import wire
from _pytest._io import TerminalWriter


def is_plain(reports: list[Any]) -> bool:
    """Whether a test passed without a word: its result fits a few numbers."""
    if len(reports) != 3:
        return False
    for report in reports:
        if report.outcome != "passed" or hasattr(report, "wasxfail") or report.sections or report.user_properties:
            return False
    return bool(reports[1].when == "call") and not is_subtest(reports[1])


def plain_frame(key: int, reports: list[Any]) -> bytes:
    setup, call, teardown = reports
    return wire.PASSED.pack(b"P", key, setup.start, setup.duration, call.duration, teardown.duration)


def is_subtest(report: Any) -> bool:
    """Of pytest 9's own `subtests`, of unittest's `subTest`, or of pytest-subtests."""
    return report.when == "call" and hasattr(report, "context")


def full(key: int, reports: list[Any], dropped: int) -> dict[str, Any]:
    """The JSON object of a test's result; `dropped` bytes of its output are lost already."""
    outcome, message = verdict(reports)
    streams, extra = sections(reports)
    longrepr, _ = wire.clip("\n\n".join(tracebacks(reports) + extra), wire.TEXT_BYTES_MAX)
    phases = [report for report in reports if not is_subtest(report)]
    result: dict[str, Any] = {
        "key": key,
        "outcome": outcome,
        "started": getattr(reports[0], "start", 0.0),
        "phases": [(report.when, _category(report), report.duration) for report in phases],
        "message": wire.clip(message)[0][: wire.MESSAGE_CHARS_MAX],
        "longrepr": longrepr,
        "properties": properties(reports[-1].user_properties),
    }
    reruns = tries_before(reports)
    if reruns:
        result["reruns"] = reruns
    subtests = [report for report in last_try(reports) if is_subtest(report) and _category(report) != "passed"]
    if subtests:
        result["subtests"] = [
            (wire.clip(description(report), wire.SUBTEST_BYTES_MAX)[0], _category(report), report.duration)
            for report in subtests[: wire.SUBTESTS_MAX]
        ]
    for name, text in streams.items():
        result[name], lost = wire.clip(text)
        dropped += lost
    result["dropped"] = dropped
    return result


def traceback_of(error: BaseException) -> str:
    """As pytest prints it, from the suite's first own line on."""
    found = pytest.ExceptionInfo.from_exception(error)
    own = found.traceback.filter(lambda entry: not _is_internal(str(entry.path)))
    if own:
        found.traceback = own
    try:
        return str(found.getrepr(style="long"))
    except Exception as another:  # what the suite raises may raise when it is shown
        return f"{type(error).__name__}, which can't be shown: {type(another).__name__}"


def _is_internal(path: str) -> bool:
    return any(f"/{package}/" in path for package in ("_pytest", "pluggy", "_mesh_pytest_side", "pytest_side"))


def properties(given: list[Any]) -> list[tuple[str, str]]:
    """As text, and no more of them than fits."""
    kept: list[tuple[str, str]] = []
    room = wire.PROPERTIES_BYTES_MAX
    for name, value in given[: wire.PROPERTIES_MAX]:
        pair = wire.clip(text_of(name), wire.SUBTEST_BYTES_MAX)[0], wire.clip(text_of(value), max(2, room))[0]
        kept.append(pair)
        room -= len(pair[0]) + len(pair[1])
        if room <= 0:
            break
    return kept


def warning(recorded: Any, root: str) -> str:
    """As pytest prints it in its summary, the tree's own files relative to its root."""
    try:
        text = warnings.formatwarning(
            str(recorded.message), recorded.category, recorded.filename, recorded.lineno, recorded.line
        )
    except BaseException as error:
        text = f"{text_of(recorded.category)}: its text can't be had: {type(error).__name__}"
    return wire.clip(text.replace(root.rstrip("/") + "/", "").rstrip(), wire.WARNING_BYTES_MAX)[0]


def text_of(value: Any) -> str:
    """`str(value)`, whatever the value makes of that."""
    try:
        return str(value)
    except BaseException as error:
        return f"<{type(value).__name__}: its text can't be had: {type(error).__name__}>"


def last_try(reports: list[Any]) -> list[Any]:
    """Without all that an earlier try reported: sub-tests, which have no number, come before their own test."""
    tries = tries_before(reports)
    earlier = [index for index, report in enumerate(reports) if getattr(report, "rerun", tries) < tries]
    return reports[max(earlier, default=-1) + 1 :]


def tries_before(reports: list[Any]) -> int:
    """pytest-rerunfailures numbers the tries of a test, from 0."""
    return max((getattr(report, "rerun", 0) for report in reports), default=0)


def description(report: Any) -> str:
    """A sub-test's, as pytest shows it: "[message] (i=1)"."""
    context = report.context
    parts = [f"[{text_of(context.msg)}]"] if context.msg is not None else []
    if context.kwargs:
        parts.append("(" + ", ".join(f"{name}={text_of(value)}" for name, value in context.kwargs.items()) + ")")
    return " ".join(parts) or "(<subtest>)"


def _category(report: Any) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.outcome == "skipped" else "xpassed"
    if report.outcome == "failed" and report.when != "call":
        return "error"
    return str(report.outcome)


_RANK = ("failed", "error", "xfailed", "xpassed", "skipped", "passed")


def _rank(report: Any) -> int:
    category = _category(report)
    return _RANK.index(category) if category in _RANK else 0


def verdict(reports: list[Any]) -> tuple[str, str]:
    """(outcome, one line that says why)."""
    counted = [report for report in last_try(reports) if not is_subtest(report) or report.outcome == "failed"]
    worst = min(counted, key=_rank, default=reports[-1])
    outcome = _category(worst)
    if outcome == "passed":
        return outcome, ""
    if outcome not in _RANK:
        outcome = "failed"
    if hasattr(worst, "wasxfail"):
        return outcome, text_of(worst.wasxfail)
    if outcome == "skipped":
        reason = str(worst.longrepr[2]) if isinstance(worst.longrepr, tuple) else text_of(worst.longrepr)
        return outcome, reason[len("Skipped: ") :] if reason.startswith("Skipped: ") else reason
    line = _reason(worst)
    return outcome, f"{description(worst)} {line}" if is_subtest(worst) else line


def _reason(report: Any) -> str:
    """The line of a failure's traceback that tells most."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else traceback(report)
    lines = str(text).strip().splitlines() or [""]
    return lines[0] if crash is not None else lines[-1]


def traceback(report: Any) -> str:
    """What pytest prints of it, the first line as deep as the others (`longreprtext` is not); a plugin's own kind of
    failure may refuse to be shown."""
    text = io.StringIO()
    writer = TerminalWriter(text)
    writer.hasmarkup = False
    try:
        report.toterminal(writer)
        return text.getvalue().strip("\n").rstrip()
    except Exception as error:
        return f"<{type(report.longrepr).__name__}: its text can't be had: {type(error).__name__}: {text_of(error)}>"


def tracebacks(reports: list[Any]) -> list[str]:
    """What pytest prints of each phase that went wrong."""
    return [
        f"{description(report)}\n{traceback(report)}" if is_subtest(report) else traceback(report)
        for report in reports
        if report.longrepr is not None and not isinstance(report.longrepr, tuple)
    ]


def sections(reports: list[Any]) -> tuple[dict[str, str], list[str]]:
    """Captured text by stream, and plugins' sections as text."""
    streams = {"stdout": "", "stderr": "", "log": ""}
    extra: list[str] = []
    seen = set()
    for report in reports:
        for title, content in report.sections:
            if (title, content) in seen:
                continue
            seen.add((title, content))
            kind = title.split(" ")[1] if title.startswith("Captured ") else ""
            if kind in streams:
                streams[kind] += content if not streams[kind] or kind != "log" else "\n" + content
            else:
                extra.append(f"{title}\n{content}")
    return streams, extra
