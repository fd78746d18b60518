"""What would close a gap between a worker and a requirement, where somebody can close it: a label to set, a program to
install, memory to free. Nobody can for hardware that is not there: such a gap has no remedy. Pure."""

from dataclasses import dataclass

from mesh.scheduler.facts import CHANGING, PROBED
from mesh.scheduler.gaps import Gap
from mesh.scheduler.requirements import AnyOf, Compare, Contains, Expression, Has, Not, OneOf, show
from mesh.scheduler.shelf import size_text
from protocols.codec import Value

LABEL_VALUE = "yes"
"""For a label that only has to be there."""


@dataclass(frozen=True, slots=True)
class Remedy:
    kind: str
    """"label", "install", "restart", "free", "wait"."""
    condition: str
    """Follows "would do if"."""
    action: str
    """What to do, for `{who}`; empty if the condition says it."""


def remedy(gap: Gap) -> Remedy | None:
    """None where only another worker would help."""
    term = gap.term
    if isinstance(term, Not):
        return _without(term)
    if term.name in CHANGING:
        return _by_itself(term, gap)
    if _is_label(term.name):
        return _label(term)
    version = python_of(term)
    if version:
        return Remedy("install", f"Python {version} were installed", f"install Python {version} on {{who}}")
    if isinstance(term, Has) and term.name == "uv":
        return Remedy("install", "uv were installed", "install uv on {who}")
    if isinstance(term, Contains) and term.name == "browsers":
        return Remedy("install", f"{term.value.text} were installed", f"install {term.value.text} on {{who}}")
    if isinstance(term, Compare) and term.name == "slots" and term.operator in (">=", "=="):
        return Remedy("restart", f"--slots were {term.value.text}", f"restart {{who}} with --slots {term.value.text}")
    return None


def python_of(term: Expression) -> str:
    """The version that a term asks a worker to have; empty if it is of something else."""
    if isinstance(term, Compare) and term.name == "python" and term.operator in ("==", ">="):
        return term.value.text if term.operator == "==" else f"{term.value.text} or newer"
    return term.value.text if isinstance(term, Contains) and term.name == "pythons" else ""


def phrase(expression: Expression) -> str:
    """An expression as people say it: `python == 3.13 or 3.13 in pythons` is "Python 3.13"."""
    if isinstance(expression, AnyOf):
        versions = {python_of(operand) for operand in expression.operands}
        if len(versions) == 1 and "" not in versions:
            return f"Python {versions.pop()}"
    return show(expression)


def _is_label(name: str) -> bool:
    return name.partition(".")[0] not in PROBED


def _label(term: Has | Compare | Contains | OneOf) -> Remedy | None:
    name = term.name.removeprefix("label.")
    if isinstance(term, Has):
        value = LABEL_VALUE
    elif isinstance(term, OneOf):
        value = term.values[0].text
    elif isinstance(term, Contains) or term.operator in ("==", ">=", "<="):
        value = term.value.text
    else:
        return None
    return Remedy(
        "label", f"label {name}={value} were set", f"restart {{who}} with --label {_quoted(f'{name}={value}')}"
    )


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def _without(term: Not) -> Remedy | None:
    inner = term.operand
    if not isinstance(inner, Has | Compare | Contains | OneOf):
        return None
    if inner.name in CHANGING:
        return Remedy("wait", f"{show(inner)} were no longer so", "")
    if not _is_label(inner.name):
        return None
    name = inner.name.removeprefix("label.")
    return Remedy("label", f"label {name} were not as it is", f"restart {{who}} without --label {name}=…")


def _by_itself(term: Has | Compare | Contains | OneOf, gap: Gap) -> Remedy | None:
    """For what is otherwise from one moment to the next."""
    actual = gap.actual
    is_size = term.name in ("memory.available", "disk.free", "gpu.memory.free")
    if isinstance(term, Compare) and is_size and term.operator in (">", ">=") and _is_number(actual):
        assert isinstance(actual, int | float)
        if term.value.number is None:
            return None
        own = {"memory.available": "its memory", "disk.free": "its disk"}
        more = size_text(max(1.0, term.value.number - actual))
        return Remedy("free", f"{more} more of {own.get(term.name, f'the memory of {gap.device}')} were free", "")
    has = f" (it is {actual:g})" if isinstance(actual, int | float) else ""
    return Remedy("wait", f"{show(term)} held{has}", "")


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
