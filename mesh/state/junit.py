"""`junit.xml`, in pytest's own dialect (junit_family=xunit2): a head, a case for each record, a tail.

Names come from node IDs exactly as pytest derives them, so that tools that compare runs see no difference between a run
on a mesh and one in a terminal. What pytest has no place for (host, attempt, device, artifacts) stands where it puts
what tests themselves record: in `properties` of a `testcase`. Rejected: xml.etree (needs the whole document in memory),
records in attributes of our own (strict readers refuse them).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from protocols.manifests import Outcome, Record

_ILLEGAL = re.compile("[^\t\n\r\x20-\x7e\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 can't hold, not even escaped; and DEL, which pytest also replaces."""


OPENING = b'<?xml version="1.0" encoding="utf-8"?>\n<testsuites name="pytest tests">'
CLOSING = b"</testsuite>"
ENDING = b"</testsuites>\n"


def head(counts: Sequence[int], seconds: float, started: float, hostname: str, teardowns: int = 0) -> bytes:
    """Opens a document of one suite. `counts` by `Outcome.code`, `seconds` of wall time, `started` since the epoch;
    `teardowns`: errors of no test."""
    return OPENING + suite("pytest", counts, seconds, started, hostname, teardowns)


def suite(name: str, counts: Sequence[int], seconds: float, started: float, hostname: str, teardowns: int = 0) -> bytes:
    """Opens one of the suites of a document."""
    total = sum(counts) + teardowns
    skipped = counts[Outcome.SKIPPED.code] + counts[Outcome.XFAILED.code]
    errors, failures = counts[Outcome.ERROR.code] + teardowns, counts[Outcome.FAILED.code]
    stamp = datetime.fromtimestamp(started, UTC).isoformat()
    return (
        f'<testsuite name="{_attribute(name)}" errors="{errors}" failures="{failures}" '
        f'skipped="{skipped}" tests="{total}" time="{seconds:.3f}" timestamp="{stamp}" '
        f'hostname="{_attribute(hostname)}">\n'
    ).encode()


def tail() -> bytes:
    return CLOSING + ENDING


def case(
    record: Record,
    told: Sequence[tuple[str, str]] = (),
    *,
    shell: bool = False,
    attributes: Mapping[str, str] = MappingProxyType({}),
    children: str = "",
) -> bytes:
    """One `testcase`; `told`: properties beside the record's own. `shell`: of a command, whose ID is all name.
    `attributes` and `children` (XML) of readers that know more than pytest writes."""
    classname, name = ("", record.test) if shell else names(record.test)
    parts = [_properties((*record.properties, *told)), _verdict(record), children, *_output(record)]
    inner = "".join(part for part in parts if part)
    given = {"classname": classname, "name": name, **attributes, "time": f"{record.duration:.3f}"}
    told_as = " ".join(f'{name}="{_attribute(value)}"' for name, value in given.items())
    return (f"<testcase {told_as}>{inner}</testcase>\n" if inner else f"<testcase {told_as} />\n").encode()


def rerun(tag: str, record: Record) -> str:
    """A try before the verdict, as Maven's Surefire has it: `flakyFailure`, `rerunError` and the like."""
    trace = f"<stackTrace>{_text(record.longrepr or record.message)}</stackTrace>"
    attributes = f'message="{_attribute(record.message)}" type="{record.outcome.value}"'
    return f"<{tag} {attributes}>{trace}{''.join(_output(record))}</{tag}>"


def teardown(host: str, error: str) -> bytes:
    """An error of fixtures that were torn down after the last test: of no test, so a `testcase` of its own."""
    lines = error.strip().splitlines() or [""]
    inner = _element("error", f'failed on teardown with "{lines[-1].removeprefix("E").strip()}"', error)
    return f'<testcase classname="" name="session on {_attribute(host)}" time="0.000">{inner}</testcase>\n'.encode()


def names(test: str) -> tuple[str, str]:
    """(classname, name) of a node ID: pytest's `mangle_test_address`. A file that skips itself whole is all name."""
    path, separator, rest = test.partition("::")
    inside, bracket, parameters = rest.partition("[")
    parts = [re.sub(r"\.py$", "", path.replace("/", ".")), *(inside.split("::") if separator else ())]
    parts[-1] += bracket + parameters
    return ".".join(parts[:-1]), parts[-1]


def _properties(properties: Sequence[tuple[str, str]]) -> str:
    if not properties:
        return ""
    inner = "".join(f'<property name="{_attribute(name)}" value="{_attribute(value)}" />' for name, value in properties)
    return f"<properties>{inner}</properties>"


def _verdict(record: Record) -> str:
    match record.outcome:
        case Outcome.FAILED:
            return _element("failure", record.message, record.longrepr)
        case Outcome.ERROR:
            return _element("error", _error_message(record), record.longrepr)
        case Outcome.SKIPPED:
            return _element("skipped", record.message, record.longrepr, "pytest.skip")
        case Outcome.XFAILED:
            return _element("skipped", record.message, "", "pytest.xfail")
        case _:
            return ""


def _error_message(record: Record) -> str:
    """As pytest says it, when a phase around the test failed."""
    for phase in record.phases:
        if phase.name in ("setup", "teardown") and phase.outcome == "failed":
            return f'failed on {phase.name} with "{record.message}"'
    return record.message


def _output(record: Record) -> list[str]:
    out = record.stdout
    if record.log:
        out += f"\n--- Captured Log ---\n{record.log}" if out else record.log
    streams = (("system-out", out), ("system-err", record.stderr))
    return [f"<{tag}>{_text(content)}</{tag}>" for tag, content in streams if content]


def _element(tag: str, said: str, text: str, kind: str = "") -> str:
    attributes = (f' type="{kind}"' if kind else "") + f' message="{_attribute(said)}"'
    return f"<{tag}{attributes}>{_text(text)}</{tag}>" if text else f"<{tag}{attributes} />"


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda match: _name_character(ord(match.group())), text)


def _name_character(code: int) -> str:
    return f"#x{code:02X}" if code <= 0xFF else f"#x{code:04X}"


def _text(text: str) -> str:
    return _legal(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def _attribute(text: str) -> str:
    return _text(text).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")
