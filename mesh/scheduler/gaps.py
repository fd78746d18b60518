"""What of a requirement a worker does not meet: the fewest terms that would have to hold besides. Pure.

Where there is a choice (`or`, several devices), the one with the fewest gaps counts, of these the one that is nearest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.scheduler.requirements import (
    All,
    AnyOf,
    Compare,
    Contains,
    Devices,
    Expression,
    Has,
    Not,
    OneOf,
    device_kind,
    devices,
    judge,
    judge_term,
    lookup,
    names,
    unmet,
)
from protocols.codec import Value


@dataclass(frozen=True, slots=True)
class Gap:
    """A term that does not hold, or a negation."""

    term: Has | Compare | Contains | OneOf | Not
    actual: Value = None
    """What there is in its place."""
    device: str = ""
    """Of which device, such as "gpu 0"; empty: of the worker."""

    @property
    def distance(self) -> float:
        """How far it is from holding, from 0 to 1: the missing part of an amount."""
        term = self.term
        if not isinstance(term, Compare) or term.value.number is None or isinstance(self.actual, str | bool):
            return 1.0
        if not isinstance(self.actual, int | float):
            return 1.0
        largest = max(abs(term.value.number), abs(self.actual))
        return abs(term.value.number - self.actual) / largest if largest else 0.0


def gaps(expression: Expression | None, capabilities: Mapping[str, Value]) -> tuple[Gap, ...]:
    """Empty if the capabilities meet the expression."""
    return () if expression is None or not unmet(expression, capabilities) else _gaps(expression, capabilities, {})


def _gaps(expression: Expression, capabilities: Mapping[str, Value], bound: Devices) -> tuple[Gap, ...]:
    if isinstance(expression, AnyOf):
        return _nearest(_gaps(operand, capabilities, bound) for operand in expression.operands)
    if isinstance(expression, Not):
        return () if judge(expression, capabilities, bound) == "" else (Gap(expression),)
    operands = expression.operands if isinstance(expression, All) else (expression,)
    for name in (name for operand in operands for name in names(operand)):
        kind = device_kind(name, capabilities)
        if kind and kind not in bound:
            there = devices(capabilities, kind)
            return _nearest(_gaps(expression, capabilities, {**bound, kind: device}) for device in there)
    if isinstance(expression, All):
        found: list[Gap] = []
        for operand in operands:
            found += [gap for gap in _gaps(operand, capabilities, bound) if gap not in found]
        return tuple(found)
    if not judge_term(expression, capabilities, bound):
        return ()
    is_there, value = lookup(expression.name, capabilities, bound)
    head = expression.name.partition(".")[0]
    of = bound.get(head) if expression.name not in capabilities else None
    device = f"{head} {of.get('index', '')!s}".strip() if of is not None else ""
    return (Gap(expression, value if is_there else None, device),)


def _nearest(choices: Iterable[tuple[Gap, ...]]) -> tuple[Gap, ...]:
    return min(choices, key=lambda found: (len(found), sum(gap.distance for gap in found)))
