"""Requirement expressions: `gpu.cuda >= 12 and gpu.memory >= 8GiB`, read once, judged against capabilities.

    expression  = conjunction ("or" conjunction)*
    conjunction = negation ("and" negation)*
    negation    = "not" negation | "(" expression ")" | term
    term        = NAME                                  it is there, and not false, zero or empty
                | NAME ("==" | "!=" | "<" | "<=" | ">" | ">=") VALUE
                | VALUE "in" NAME                       the list, or the text, contains it
                | NAME "in" "(" VALUE ("," VALUE)* ")"
    VALUE       = number [unit] | version | word | "text" | 'text'

Units: KiB to PiB, KB to PB, B (bytes); ms, s (seconds); %. Against a capability that is text, a value that looks like a
version is compared as one, by as many components as the value has: 3.11.7 `== 3.11`, and it is not `> 3.11`.

A capability that is a list of devices ("gpu") is named with a dot. Terms about one kind of device that are joined by
`and` must hold of ONE device; alone, or under `or`, of some device; `chromium in browsers` asks for one of that name.
What a worker does not have, it does not meet: each failing judgement gives the reason. What there is to name: `facts`.
Rejected: Python's `eval`, however fenced.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from protocols.codec import Value
from protocols.errors import UsageError

EXPRESSION_CHARACTERS_MAX = 1_000
NESTING_MAX = 20

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')
        |(?P<number>\d[\w.+-]*%?)
        |(?P<word>[A-Za-z_][\w.:/+-]*)
        |(?P<operator>==|!=|<=|>=|<|>|\(|\)|,))""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z]*|%)")
_VERSION = re.compile(r"\d+(\.\d+)*")
_UNITS: Mapping[str, float] = {
    "": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pib": 2**50, "pb": 10**15,
    "ms": 0.001, "s": 1, "%": 1,
}  # fmt: skip
_NEARLY_UNITS = frozenset(("k", "m", "g", "t", "ki", "mi", "gi", "ti", "sec", "min", "h", "us", "ns"))
"""What people write for a unit and no capability's value ends in."""
_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
_KEYWORDS = ("and", "or", "not", "in")


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written; `number` is set when it can be one, in bytes or seconds where it has a unit."""

    text: str
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Has:
    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    name: str
    operator: str
    value: Literal


@dataclass(frozen=True, slots=True)
class Contains:
    name: str
    value: Literal


@dataclass(frozen=True, slots=True)
class OneOf:
    name: str
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Not:
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class All:
    operands: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    operands: tuple["Expression", ...]


Expression = Has | Compare | Contains | OneOf | Not | All | AnyOf


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Expression | None:
    """The expression in `text`, None if it is blank; `UsageError` names what is wrong, and where (from 1)."""
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        raise UsageError(f"requirement {text[:40]!r}… has more than {EXPRESSION_CHARACTERS_MAX} characters")
    return _Parser(text).whole() if text.strip() else None


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[_Token] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                place = position + len(text[position:]) - len(text[position:].lstrip())
                self._fail(f"{text[place]!r} is not understood", place)
            kind = match.lastgroup or ""
            self._tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        self._next = 0
        self._depth = 0

    def _fail(self, what: str, position: int) -> NoReturn:
        raise UsageError(f"requirement {self._text!r}: {what} at position {position + 1}")

    def _peek(self) -> _Token:
        end = _Token("end", "", len(self._text))
        return self._tokens[self._next] if self._next < len(self._tokens) else end

    def _expected(self, what: str) -> NoReturn:
        token = self._peek()
        self._fail(f"expected {what}, found {repr(token.text) if token.text else 'its end'}", token.position)

    def _take(self, *texts: str) -> str:
        """The next token's text, taken, if it is one of `texts` (and not quoted); else empty."""
        token = self._peek()
        if token.kind in ("word", "operator") and token.text in texts:
            self._next += 1
            return token.text
        return ""

    def whole(self) -> Expression:
        made = self._either()
        if self._peek().kind != "end":
            self._expected("'and', 'or' or the end")
        return made

    def _either(self) -> Expression:
        operands = [self._both()]
        while self._take("or"):
            operands.append(self._both())
        flat = [
            part for operand in operands for part in (operand.operands if isinstance(operand, AnyOf) else (operand,))
        ]
        return flat[0] if len(flat) == 1 else AnyOf(tuple(flat))

    def _both(self) -> Expression:
        operands = [self._single()]
        while self._take("and"):
            operands.append(self._single())
        flat = [part for one in operands for part in (one.operands if isinstance(one, All) else (one,))]
        return flat[0] if len(flat) == 1 else All(tuple(flat))

    def _single(self) -> Expression:
        self._depth += 1
        if self._depth > NESTING_MAX:
            self._fail("nested too deeply", self._peek().position)
        made: Expression
        if self._take("not"):
            made = Not(self._single())
        elif self._take("("):
            made = self._either()
            if not self._take(")"):
                self._expected("')'")
        else:
            made = self._term()
        self._depth -= 1
        return made

    def _term(self) -> Expression:
        token = self._peek()
        value = self._value("a capability's name")
        if self._take("in"):
            return self._membership(token, value)
        if token.kind != "word":
            self._fail(f"expected a capability's name, found {token.text!r}", token.position)
        operator = self._take(*_COMPARISONS)
        return Compare(token.text, operator, self._value("a value")) if operator else Has(token.text)

    def _membership(self, left: _Token, value: Literal) -> Expression:
        if not self._take("("):
            name = self._peek()
            if name.kind != "word" or name.text in _KEYWORDS:
                self._expected("a capability's name or '('")
            self._next += 1
            return Contains(name.text, value)
        if left.kind != "word":
            self._fail(f"expected a capability's name, found {left.text!r}", left.position)
        values = [self._value("a value")]
        while self._take(","):
            values.append(self._value("a value"))
        if not self._take(")"):
            self._expected("',' or ')'")
        return OneOf(left.text, tuple(values))

    def _value(self, what: str) -> Literal:
        token = self._peek()
        if token.kind not in ("text", "number", "word") or token.text in _KEYWORDS:
            self._expected(what)
        self._next += 1
        if token.kind == "text":
            return Literal(token.text[1:-1])
        if token.kind == "word":
            return Literal(token.text)
        return self._number(token)

    def _number(self, token: _Token) -> Literal:
        text = token.text
        unit = self._peek()
        if unit.kind == "word" and unit.text.lower() in _UNITS and _NUMBER.fullmatch(text):
            self._next += 1
            text += unit.text
        match = _NUMBER.fullmatch(text)
        if match is None:
            return Literal(text)
        if match.group(2).lower() in _NEARLY_UNITS:
            self._fail(f"unknown unit {match.group(2)!r} (known are B, KB to PB, KiB to PiB, ms, s, %)", token.position)
        factor = _UNITS.get(match.group(2).lower())
        return Literal(text, None if factor is None else float(match.group(1)) * factor)


def unmet(expression: Expression | None, capabilities: Mapping[str, Value]) -> str:
    """Why `capabilities` do not meet the expression, as the end of a sentence ("has no gpu"); empty if they do."""
    return "" if expression is None else judge(expression, capabilities, {})


Devices = Mapping[str, Mapping[str, Value]]
"""Kind of device -> the one that is spoken of."""


def judge(expression: Expression, capabilities: Mapping[str, Value], bound: Devices) -> str:
    if isinstance(expression, All):
        return _judge_all(expression.operands, capabilities, bound)
    if isinstance(expression, AnyOf):
        reasons = [judge(operand, capabilities, bound) for operand in expression.operands]
        return "" if "" in reasons else " and ".join(dict.fromkeys(reasons))
    if isinstance(expression, Not):
        held = not judge(expression.operand, capabilities, bound)
        return f"does have {show(expression.operand)}" if held else ""
    kind = device_kind(expression.name, capabilities)
    if kind and kind not in bound:
        return _judge_all((expression,), capabilities, bound)
    return judge_term(expression, capabilities, bound)


def _judge_all(operands: Sequence[Expression], capabilities: Mapping[str, Value], bound: Devices) -> str:
    """A conjunction: the first kind of device that it speaks of is bound to each device in turn."""
    for kind in dict.fromkeys(
        kind for operand in operands for name in names(operand) if (kind := device_kind(name, capabilities))
    ):
        if kind in bound:
            continue
        reasons = []
        for device in devices(capabilities, kind):
            reasons.append(_judge_all(operands, capabilities, {**bound, kind: device}))
            if not reasons[-1]:
                return ""
        return reasons[0] if len(set(reasons)) == 1 else f"has no single {kind} with {show(All(tuple(operands)))}"
    for operand in operands:
        reason = judge(operand, capabilities, bound)
        if reason:
            return reason
    return ""


def judge_term(term: Has | Compare | Contains | OneOf, capabilities: Mapping[str, Value], bound: Devices) -> str:
    found, value = lookup(term.name, capabilities, bound)
    if not found:
        head = term.name.partition(".")[0]
        return f"has no {term.name if capabilities.get(head) or head == 'label' else head}"
    if isinstance(term, Has):
        return "" if value else f"has no {term.name}"
    if isinstance(term, Contains):
        if isinstance(value, str):
            return "" if term.value.text in value else f"has {term.name} {_show_value(value)}"
        items = value if isinstance(value, Sequence) else ()
        items = tuple(item.get("name") if isinstance(item, Mapping) else item for item in items)
        return "" if any(_holds("==", i, term.value) for i in items) else f"has no {term.value.text} in {term.name}"
    if isinstance(term, OneOf):
        met = any(_holds("==", value, option) for option in term.values)
    else:
        met = _holds(term.operator, value, term.value)
    return (
        "" if met else f"has {term.name} {_show_value(value, term)}, not {show(term).removeprefix(term.name).strip()}"
    )


def lookup(name: str, capabilities: Mapping[str, Value], bound: Devices) -> tuple[bool, Value]:
    """Whether there is a capability of that name, and its value. Dots lead into devices and nested maps."""
    if name in capabilities:
        return True, capabilities[name]
    head, _, rest = name.partition(".")
    if head in bound:
        return lookup(rest, bound[head], {})
    inner = capabilities.get(head)
    return lookup(rest, inner, {}) if rest and isinstance(inner, Mapping) else (False, None)


def device_kind(name: str, capabilities: Mapping[str, Value]) -> str:
    """The kind of device that a dotted name speaks of; empty when it speaks of none that is there."""
    head, dot, _ = name.partition(".")
    return head if dot and name not in capabilities and devices(capabilities, head) else ""


def devices(capabilities: Mapping[str, Value], kind: str) -> list[Mapping[str, Value]]:
    value = capabilities.get(kind)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, tuple | list) else []


def names(expression: Expression) -> list[str]:
    if isinstance(expression, Not):
        return names(expression.operand)
    if isinstance(expression, All | AnyOf):
        return [name for operand in expression.operands for name in names(operand)]
    return [expression.name]


def _holds(operator: str, actual: Value, wanted: Literal) -> bool:
    if isinstance(actual, bool):
        order = 0 if str(actual).lower() == wanted.text.lower() or wanted.number == actual else None
    elif isinstance(actual, int | float):
        order = None if wanted.number is None else (actual > wanted.number) - (actual < wanted.number)
    elif isinstance(actual, str):
        order = _order_text(actual, wanted.text)
    else:
        order = None
    if order is None:
        return operator == "!="
    return {
        "==": order == 0, "!=": order != 0, "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0
    }[operator]  # fmt: skip


def _order_text(actual: str, wanted: str) -> int | None:
    """-1, 0 or 1 as versions if both look like one (by the components of `wanted`); else 0 for equal, None for not."""
    have, want = _VERSION.match(actual), _VERSION.fullmatch(wanted)
    if have and want:
        components = [int(part) for part in want.group().split(".")]
        given = [int(part) for part in have.group().split(".")][: len(components)]
        given += [0] * (len(components) - len(given))
        return (given > components) - (given < components)
    return 0 if actual == wanted else None


def show(expression: Expression) -> str:
    """The expression as text."""
    match expression:
        case Has(name):
            return name
        case Compare(name, operator, value):
            return f"{name} {operator} {value.text}"
        case Contains(name, value):
            return f"{value.text} in {name}"
        case OneOf(name, values):
            return f"{name} in ({', '.join(value.text for value in values)})"
        case Not(operand):
            return f"not ({show(operand)})"
        case All(operands):
            return " and ".join(f"({show(o)})" if isinstance(o, AnyOf) else show(o) for o in operands)
        case AnyOf(operands):
            return " or ".join(show(operand) for operand in operands)


def _show_value(value: Value, term: Has | Compare | Contains | OneOf | None = None) -> str:
    """A capability's value, in the unit of a size that it is compared with."""
    if isinstance(term, Compare) and isinstance(value, int) and term.value.text[-1:] in "bB" and value >= 2**20:
        return f"{value / 2**30:.1f}GiB" if value >= 2**30 else f"{value / 2**20:.1f}MiB"
    return str(value)
