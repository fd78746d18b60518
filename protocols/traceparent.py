"""W3C trace contexts, as they travel in the variable TRACEPARENT and with a run (`RunSpec.trace`)."""

import re
from dataclasses import dataclass

LOG_FORMAT_MIN = 5
"""A log in an older format has no `RunSpec.trace`."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.{0,100})?\Z")


@dataclass(frozen=True, slots=True)
class Parent:
    """What a submitter's trace context says."""

    trace: int
    span: int
    sampled: bool


def parse_traceparent(text: str) -> Parent | None:
    """None for what is no trace context: it is then as if there were none, as the standard wants."""
    found = _TRACEPARENT.match(text.strip())
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return Parent(int(found[1], 16), int(found[2], 16), bool(int(found[3], 16) & 1))
