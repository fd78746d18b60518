"""`mesh status`, `mesh nodes`, `mesh runs` and `mesh topology` as text: aligned tables from the JSON documents of
interface.md.

For people; scripts take the documents. Each function returns the whole text without a newline at its end. A cell is
bounded in width, a table is not cut: whoever pages a long list wants all of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.views import human
from mesh.views.topology import summary, topology

NAME_CHARS = 28
RUN_NAME_CHARS = 32
MODEL_CHARS = 24
CELL_CHARS = 64
"""A report's CID fits: it is there to be copied."""

_ENDED = ("passed", "failed", "cancelled", "error")


def status(document: Mapping[str, Any]) -> str:
    """What goes on: the mesh in a few lines, its nodes, and the runs that have not ended."""
    nodes = document.get("nodes") or ()
    runs = [run for run in document.get("runs") or () if run.get("state") not in _ENDED]
    ended = len(document.get("runs") or ()) - len(runs)
    live = [node for node in nodes if node.get("state") != "dead"]
    slots, busy = (sum(int(node.get(key) or 0) for node in live) for key in ("slots", "busy"))
    states = [
        f"{count} {state}"
        for state in ("suspect", "draining", "dead")
        if (count := sum(node.get("state") == state for node in nodes))
    ]
    lines = [
        ("mesh", human.clean(str(document.get("mesh") or "not founded yet"))),
        ("coordinator", _coordinator(document)),
        ("log", f"term {document.get('term', 0)}, committed to {human.number(int(document.get('commit_index') or 0))}"),
        ("nodes", human.plural(len(nodes), "node") + (f" ({', '.join(states)})" if states else "")),
        ("voters", str(len(document.get("voters") or ()))),
        ("slots", f"{busy} of {human.number(slots)} busy"),
        ("runs", f"{len(runs)} open, {human.number(ended)} ended"),
    ]
    blocks = ["\n".join(f"{name:<13}{value}" for name, value in lines), nodes_table(document)]
    if runs:
        blocks.append(runs_table(runs))
    return "\n\n".join(blocks)


def _coordinator(document: Mapping[str, Any]) -> str:
    peer = str(document.get("coordinator") or "")
    if not peer:
        return "none: no majority of the voters agrees on one"
    names = {str(node.get("peer")): str(node.get("name") or "") for node in document.get("nodes") or ()}
    here = " (this node)" if peer == document.get("self") else ""
    return " ".join(part for part in (human.short(names.get(peer, ""), NAME_CHARS), human.peer(peer)) if part) + here


def nodes_table(document: Mapping[str, Any]) -> str:
    """One line a node, by name: `mesh nodes`, from the document of `mesh status`."""
    nodes = sorted(
        document.get("nodes") or (), key=lambda node: (str(node.get("name") or ""), str(node.get("peer") or ""))
    )
    if not nodes:
        return "no nodes"
    voters = {str(peer) for peer in document.get("voters") or ()}
    coordinator = document.get("coordinator")
    header = ("NODE", "PEER", "ROLE", "STATE", "RAFT", "BUSY", "CORES", "MEMORY", "GPU", "OS", "PYTHON")
    rows = []
    for node in nodes:
        peer = str(node.get("peer") or "")
        raft = "coordinator" if peer == coordinator else "voter" if peer in voters else str(node.get("raft") or "-")
        has = node.get("capabilities") or {}
        rows.append(
            (
                human.short(str(node.get("name") or "-"), NAME_CHARS),
                human.peer(peer),
                str(node.get("role") or "-"),
                str(node.get("state") or "-"),
                raft,
                f"{node.get('busy') or 0}/{node.get('slots') or 0}",
                str(has.get("cpu.cores") or "-"),
                human.size(has["memory"]) if has.get("memory") else "-",
                _gpus(has.get("gpu") or ()),
                " ".join(str(has[key]) for key in ("os", "arch") if has.get(key)) or "-",
                str(has.get("python") or "-"),
            )
        )
    return human.table(header, rows, right=(5, 6, 7))


def _gpus(gpus: Sequence[Mapping[str, Any]]) -> str:
    """Equal ones together, in the order of their first: "2 x NVIDIA H100"."""
    names = [str(gpu.get("name") or "GPU") for gpu in gpus]
    kinds = [
        (f"{names.count(name)} x " if names.count(name) > 1 else "") + human.short(name, MODEL_CHARS)
        for name in dict.fromkeys(names)
    ]
    return ", ".join(kinds) or "-"


def runs_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """One line a run, in the order given: `mesh runs`."""
    if not runs:
        return "no runs"
    header = ("RUN", "NAME", "STATE", "DONE", "LEASED", "PASSED", "FAILED", "ERRORS", "SKIPPED", "TIME", "REPORT")
    rows = []
    for run in runs:
        counts = run.get("counts") or {}
        done, leased, pending = (int(run.get(key) or 0) for key in ("done", "leased", "pending"))
        total = int(run.get("tests") or 0) or done + leased + pending
        rows.append(
            (
                str(run.get("run", "-")),
                human.short(str(run.get("name") or "-"), RUN_NAME_CHARS),
                _state(run),
                f"{human.number(done)}/{human.number(total)}",
                human.number(leased),
                *(human.number(int(counts.get(outcome) or 0)) for outcome in ("passed", "failed", "error", "skipped")),
                human.duration(float(run["wall_seconds"])) if run.get("wall_seconds") else "-",
                str(run.get("report") or "-"),
            )
        )
    return human.table(header, rows, right=(0, 3, 4, 5, 6, 7, 8), width=CELL_CHARS)


def _state(run: Mapping[str, Any]) -> str:
    """A run's state, and its place in the queue where others are in it."""
    state, queue = str(run.get("state") or "-"), run.get("queue") or {}
    return f"{state} ({queue['place']} of {queue['of']})" if queue.get("of", 1) > 1 else state


def links_table(document: Mapping[str, Any]) -> str:
    """`mesh topology` as text: who is connected to whom, the slowest link first."""
    graph = topology(document)
    names = {node.peer: f"{human.short(node.name, NAME_CHARS)} {human.peer(node.peer)}" for node in graph.nodes}
    links = sorted(graph.links, key=lambda link: (-(link.rtt or 0.0), link.a, link.b))
    if not links:
        return summary(graph)
    rows = [(names[link.a], names[link.b], "-" if link.rtt is None else human.milliseconds(link.rtt)) for link in links]
    return summary(graph) + "\n\n" + human.table(("NODE", "NODE", "ROUND TRIP"), rows, right=(2,))
