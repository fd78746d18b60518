"""The mesh as a graph: who is here, and who has a live connection to whom. Pure data, and its DOT form.

A document is read leniently (a field that is absent has its plain default), because it may come from a node of another
release. Nodes are kept in the order of their peer IDs, a link once, its lesser peer first: the same mesh is the same
text and the same picture, whichever node tells of it. A link that names an unknown node is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.views import human

ROLE_COLOURS: Mapping[str, str] = {
    "auto": "#0072B2",
    "coordinator": "#CC79A7",
    "worker": "#009E73",
    "client": "#E69F00",
}
"""Okabe and Ito's palette: told apart by colour-blind readers, and in grey."""

DEAD_COLOUR = "#C9CDD2"
OTHER_COLOUR = "#7F7F7F"
"""A role of a later release."""


@dataclass(frozen=True, slots=True)
class TopologyNode:
    """`raft`: "voter", "learner" or ""; `state`: interface.md's."""

    peer: str
    name: str
    role: str
    state: str
    coordinator: bool
    raft: str
    slots: int
    busy: int

    @property
    def colour(self) -> str:
        return DEAD_COLOUR if self.state == "dead" else ROLE_COLOURS.get(self.role, OTHER_COLOUR)


@dataclass(frozen=True, slots=True)
class TopologyLink:
    """`a < b`; `rtt` in seconds, None where neither end has measured it."""

    a: str
    b: str
    rtt: float | None


@dataclass(frozen=True, slots=True)
class Topology:
    mesh: str
    nodes: tuple[TopologyNode, ...]
    links: tuple[TopologyLink, ...]

    @property
    def coordinator(self) -> TopologyNode | None:
        return next((node for node in self.nodes if node.coordinator), None)


def topology(document: Mapping[str, Any]) -> Topology:
    """The document `{"nodes": […], "links": […]}` (and "mesh", its identity) as values in a fixed order."""
    nodes = {str(raw["peer"]): _node(raw) for raw in document.get("nodes", ())}
    links: dict[tuple[str, str], TopologyLink] = {}
    for raw in document.get("links", ()):
        a, b = sorted((str(raw["a"]), str(raw["b"])))
        if a == b or a not in nodes or b not in nodes:
            continue
        measured = [rtt for rtt in (raw.get("rtt"), links[a, b].rtt if (a, b) in links else None) if rtt is not None]
        links[a, b] = TopologyLink(a, b, min(measured, default=None))
    return Topology(
        mesh=human.clean(str(document.get("mesh") or "")),
        nodes=tuple(nodes[peer] for peer in sorted(nodes)),
        links=tuple(links[pair] for pair in sorted(links)),
    )


def _node(raw: Mapping[str, Any]) -> TopologyNode:
    peer = str(raw["peer"])
    return TopologyNode(
        peer=peer,
        name=human.clean(str(raw.get("name") or human.peer(peer))),
        role=str(raw.get("role") or ""),
        state=str(raw.get("state") or "alive"),
        coordinator=bool(raw.get("coordinator")),
        raft=str(raw.get("raft") or ""),
        slots=int(raw.get("slots") or 0),
        busy=int(raw.get("busy") or 0),
    )


def summary(graph: Topology) -> str:
    """One line: "12 nodes (1 dead), 5 voters, coordinator lab-1, 17 of 64 slots busy, 66 links"."""
    states = [f"{count} {state}" for state in ("suspect", "draining", "dead") if (count := _count(graph, state))]
    live = [node for node in graph.nodes if node.state != "dead"]
    slots, busy = sum(node.slots for node in live), sum(node.busy for node in live)
    voters = sum(node.raft == "voter" for node in graph.nodes)
    parts = [human.plural(len(graph.nodes), "node") + (f" ({', '.join(states)})" if states else "")]
    if voters:
        parts.append(human.plural(voters, "voter"))
    coordinator = graph.coordinator
    parts.append(f"coordinator {human.short(coordinator.name, 32)}" if coordinator else "no coordinator")
    parts.append(f"{busy} of {human.plural(slots, 'slot')} busy")
    if len(graph.nodes) > 1:
        parts.append(human.plural(len(graph.links), "link"))
    return ", ".join(parts)


def _count(graph: Topology, state: str) -> int:
    return sum(node.state == state for node in graph.nodes)


def dot(graph: Topology) -> str:
    """Graphviz's language. Edge lengths are left to its layout; the attributes are what the pictures show."""
    lines = [
        "graph mesh {",
        f"  graph [label={_quoted(f'mesh {graph.mesh}' if graph.mesh else 'mesh')}, labelloc=t, overlap=false, "
        "splines=true, fontname=Helvetica];",
        "  node [style=filled, fontname=Helvetica, fontcolor=white];",
        '  edge [color="#666666", fontname=Helvetica, fontsize=9];',
    ]
    lines += [f"  {_quoted(node.peer)} [{_attributes(_node_attributes(node))}];" for node in graph.nodes]
    for link in graph.links:
        label = {} if link.rtt is None else {"label": human.milliseconds(link.rtt), "rtt": f"{link.rtt:.6f}"}
        attributes = f" [{_attributes(label)}]" if label else ""
        lines.append(f"  {_quoted(link.a)} -- {_quoted(link.b)}{attributes};")
    return "\n".join([*lines, "}", ""])


def _node_attributes(node: TopologyNode) -> dict[str, str]:
    second = ", ".join(part for part in (node.role, node.raft, node.state if node.state != "alive" else "") if part)
    attributes = {
        "label": f"{node.name}\n{second}\n{node.busy}/{node.slots} slots",
        "fillcolor": node.colour,
        "shape": "doubleoctagon" if node.coordinator else "ellipse",
        "role": node.role,
        "state": node.state,
        "raft": node.raft,
    }
    if node.state == "dead":
        attributes["fontcolor"] = "#555555"
    return attributes


def _attributes(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={_quoted(value)}" for key, value in attributes.items())


def _quoted(text: str) -> str:
    r"""A DOT string: quotes escaped, backslashes doubled (`\N` and the like would be read as escapes), lines as \n."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
