"""What is pinned, as people and scripts see it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.scheduler.replication import is_under
from mesh.state.model import Pin
from mesh.views.human import plural, size
from protocols.ids import PeerId
from protocols.presence import NodeState

PINS_PER_PAGE = 150
"""In one answer of the coordinator, with all their holders."""

HERE = (NodeState.ALIVE, NodeState.DRAINING)


def pin_document(pin: Pin, nodes: Mapping[PeerId, tuple[str, NodeState]]) -> dict[str, Any]:
    """One pin. `nodes`: by peer, the name and state of each that is known."""
    here = [peer for peer, (_, state) in nodes.items() if state in HERE]
    return {
        "cid": pin.root,
        "reason": ", ".join(reason.text for reason in pin.reasons),
        "wanted": pin.wanted,
        "holders": [_holder(peer, nodes) for peer in pin.holders],
        "under_replicated": is_under(pin, here),
        "size": pin.size,
        "why": [
            {
                "kind": reason.kind.value,
                "run": str(reason.run) if reason.run else None,
                "replicas": reason.replicas,
                "since": reason.since,
            }
            for reason in pin.reasons
        ],
    }


def _holder(peer: PeerId, nodes: Mapping[PeerId, tuple[str, NodeState]]) -> dict[str, Any]:
    name, state = nodes.get(peer, ("", NodeState.DEAD))
    return {"peer": peer, "name": name, "state": state.value}


def pin_lines(pins: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of `mesh pin ls`, and what is wrong with it."""
    if not pins:
        return ["nothing is pinned"]
    lines = [_line(pin) for pin in pins]
    under = sum(bool(pin.get("under_replicated")) for pin in pins)
    if under:
        lines.append(f"{plural(under, 'pin')} on fewer nodes than wanted")
    return lines


def _line(pin: Mapping[str, Any]) -> str:
    if "wanted" not in pin:
        return f"{pin['cid']}  this node  {pin['reason']}"
    count = sum(holder["state"] in HERE for holder in pin["holders"])
    where = ", ".join(
        (holder["name"] or holder["peer"]) + ("" if holder["state"] in HERE else " (away)") for holder in pin["holders"]
    )
    mark = "  UNDER-REPLICATED" if pin["under_replicated"] else ""
    much = f"  {size(pin['size'])}" if pin["size"] else ""
    return f"{pin['cid']}  {count}/{pin['wanted']}{mark}  {pin['reason']}{much}  {where or 'nowhere yet'}"
