"""What a run's environment asks of a worker: a Python that it has, and uv. Pure.

A version is a capability, so it becomes a requirement, and `mesh why` tells who lacks it. The path of an interpreter is
none (no probe could list all virtual environments of a host): the worker that is asked says whether it has it.
"""

import re

from protocols.errors import UsageError

ENVIRONMENTS = ("ambient", "uv")
OLDEST = (3, 9)
"""The oldest Python that mesh/worker/pytest_side runs under."""

_VERSION = re.compile(r"(?:c?python|py)?-?(3\.(\d{1,2})(?:\.\d{1,3})?)")


def checked_python(text: str) -> str:
    """A version ("3.12", "3.12.1"; "python3.12" is taken too) or a path, as a spec has it; `UsageError` for neither."""
    if is_path(text) and "\0" not in text:
        return text
    match = _VERSION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text[:80]!r} is neither a version of Python, such as 3.12, nor an interpreter's absolute path"
        )
    if (3, int(match[2])) < OLDEST:
        raise UsageError(f"Python {match[1]} is too old: suites run under {'.'.join(map(str, OLDEST))} or newer")
    return match[1]


def is_path(python: str) -> bool:
    """Whether `RunSpec.python` names an interpreter rather than a version."""
    return python.startswith("/")


def with_needs(requires: str, environment: str, python: str) -> str:
    """The requirement `requires` of a run, joined with what its environment needs; the same again changes nothing."""
    needs = []
    if python and not is_path(python):
        needs.append(f"(python == {python} or {python} in pythons)")
    if environment == "uv":
        needs.append("uv")
    implied = " and ".join(needs)
    if not implied or requires == implied or requires.startswith(f"{implied} and "):
        return requires
    return f"{implied} and ({requires})" if requires.strip() else implied
