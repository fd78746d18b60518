"""What requirement expressions may speak of: everything that a node's presence tells. Pure.

The names of its capabilities, labels among them; what it is ("name", "role", "slots", …); how many devices of a kind it
has ("gpu.count"); and how busy it is, which changes all the time: "memory.available", "disk.free", "cpu.percent",
"cpu.load", and of each GPU "gpu.memory.free" and "gpu.percent". A capability wins where another thing has its name.

What is so now may be otherwise soon: whether a worker could ever meet an expression is judged by `possible`, which
takes what changes for granted, up to what there is of it in all. Else a run would be ended because a host is busy.
"""

from collections.abc import Iterator, Mapping, Sequence

from mesh.scheduler.requirements import All, AnyOf, Compare, Expression, Not, names
from protocols.codec import Value
from protocols.presence import Presence

GPU = "gpu"
CHANGING = frozenset(
    ("memory.available", "disk.free", "cpu.percent", "cpu.load", "gpu.memory.free", "gpu.percent", "busy")
)
"""Names of what is otherwise from one moment to the next."""
STANDING = frozenset(("coordinator", "raft"))
"""Names of a node's place in the mesh, which may change, too."""
PROBED = frozenset(
    (
        *("arch", "browsers", "cpu", "disk", "gpu", "hostname", "log", "memory", "os", "probing", "python", "pythons"),
        *("uv", "name", "peer", "role", "slots", "busy", "raft", "coordinator"),
    )
)
"""What begins with one of these, up to a dot, is told by a node itself; any other name is a label's."""
TOTALS: Mapping[str, str] = {
    "memory.available": "memory", "disk.free": "disk.total", "gpu.memory.free": "gpu.memory", "busy": "slots"
}  # fmt: skip
"""What there is of it in all."""


def facts(presence: Presence) -> dict[str, Value]:
    """By name, what a requirement is judged against."""
    found: dict[str, Value] = {
        "name": presence.name,
        "peer": presence.peer,
        "role": str(presence.role),
        "slots": presence.slots,
        "busy": presence.busy,
        "raft": presence.raft,
        "coordinator": presence.coordinator == presence.peer,
    }
    for name, value in presence.load.items():
        if name == "cpu.load" and isinstance(value, Sequence) and value:
            found[name] = value[0]  # the average of one minute
        elif name != GPU:
            found[name] = value
    found |= presence.capabilities
    devices = presence.capabilities.get(GPU)
    used = presence.load.get(GPU)
    if isinstance(devices, Sequence) and isinstance(used, Sequence) and not isinstance(devices, str):
        found[GPU] = tuple(_with_use(device, used) for device in devices)
    for kind, value in presence.capabilities.items():
        if isinstance(value, tuple | list) and all(isinstance(item, Mapping) for item in value):
            found.setdefault(f"{kind}.count", len(value))
    return found


def _with_use(device: Value, used: Sequence[Value]) -> Value:
    """A device, and how busy it is: both name it by its index."""
    if not isinstance(device, Mapping) or "index" not in device:
        return device
    same = (one for one in used if isinstance(one, Mapping) and one.get("index") == device["index"])
    return {**next(same, {}), **device}


def possible(expression: Expression | None) -> Expression | None:
    """What of an expression does not change by itself; None if all of it may hold some day."""
    if isinstance(expression, All):
        parts = tuple(_some(expression.operands))
        return (parts[0] if len(parts) == 1 else All(parts)) if parts else None
    if isinstance(expression, AnyOf):
        parts = tuple(_some(expression.operands))
        return AnyOf(parts) if len(parts) == len(expression.operands) else None
    if expression is None or not any(name in CHANGING or name in STANDING for name in names(expression)):
        return expression
    if isinstance(expression, Not) or not isinstance(expression, Compare) or expression.operator not in (">", ">="):
        return None
    total = TOTALS.get(expression.name)
    return Compare(total, expression.operator, expression.value) if total else None


def _some(operands: Sequence[Expression]) -> Iterator[Expression]:
    return (part for operand in operands if (part := possible(operand)) is not None)
