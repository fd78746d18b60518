"""What is wrong with the mesh itself, as its coordinator sees it at a moment."""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.anomalies.rules import Rules
from protocols.alerts import AlertKind, Finding, Severity
from protocols.ids import PeerId, RunId

DISK_CRITICAL_PART = 0.25
"""Of the bytes below which a disk is full: under it nothing more can be stored soon."""

KINDS = (AlertKind.FLAPPING_NODE, AlertKind.FULL_DISK, AlertKind.LONG_QUEUE, AlertKind.UNDER_REPLICATED)
"""Those that are decided here, and end when they are no longer found."""

QUEUED_TOLD_MAX = 20


@dataclass(frozen=True, slots=True)
class NodeSeen:
    peer: PeerId
    name: str
    here: bool
    disk_free: int | None
    """Bytes; None: it has not said."""
    returns: Sequence[float]
    """When it came back after it was gone, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class RunSeen:
    run: RunId
    name: str
    waits: float
    """Seconds since something of it was last with a worker, or since its submission."""
    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    now: float
    """Seconds since the epoch."""
    nodes: Sequence[NodeSeen]
    runs: Sequence[RunSeen]
    short: int
    """Pinned roots on fewer nodes than wanted, though there are nodes enough."""
    lost: int
    """Of them, roots that no node here has."""
    short_for: float
    """Seconds since there are some."""


def meshwide(rules: Rules, seen: Seen) -> list[Finding]:
    findings = [finding for node in seen.nodes for finding in _of_node(rules, seen.now, node)]
    longest = sorted(seen.runs, key=lambda run: (-run.waits, run.run))
    findings += [_queue(run) for run in longest[:QUEUED_TOLD_MAX] if run.waits >= rules.queue_seconds]
    if seen.short and seen.short_for >= rules.replicas_seconds:
        findings.append(_replicas(seen))
    return findings


def _of_node(rules: Rules, now: float, node: NodeSeen) -> list[Finding]:
    found = []
    returns = [at for at in node.returns if now - at <= rules.flap_seconds]
    if len(returns) >= rules.flaps:
        found.append(
            Finding(
                AlertKind.FLAPPING_NODE,
                node.peer,
                Severity.WARNING,
                f"{node.name} went away and came back {len(returns)} times in {rules.flap_seconds / 60:.0f} minutes",
                "Each time, what it ran was given to others.",
                "Look at its network, its memory (was it killed?) and its log; `mesh drain` it until it is steady.",
                node=node.peer,
            )
        )
    if node.here and node.disk_free is not None and node.disk_free < rules.disk_bytes:
        low = node.disk_free < rules.disk_bytes * DISK_CRITICAL_PART
        found.append(
            Finding(
                AlertKind.FULL_DISK,
                node.peer,
                Severity.CRITICAL if low else Severity.WARNING,
                f"the disk of {node.name} is nearly full",
                f"{node.disk_free / 2**30:.2f} GiB are free, less than {rules.disk_bytes / 2**30:.2f} GiB.",
                "Make room: a node whose disk is full stops. `mesh doctor` there tells where its home is.",
                node=node.peer,
            )
        )
    return found


def _queue(run: RunSeen) -> Finding:
    return Finding(
        AlertKind.LONG_QUEUE,
        str(run.run),
        Severity.WARNING,
        f"run {run.run} ({run.name[:100]}) waits for workers",
        run.reason[:1_000],
        f"`mesh why {run.run}` names what it lacks, and what would help.",
        run=run.run,
    )


def _replicas(seen: Seen) -> Finding:
    lost = f"; no node here has {seen.lost} of them" if seen.lost else ""
    return Finding(
        AlertKind.UNDER_REPLICATED,
        "content",
        Severity.CRITICAL if seen.lost else Severity.WARNING,
        "pinned content is on fewer nodes than it should be",
        f"{seen.short} roots are{lost}.",
        "`mesh pin ls` shows them. Bring their holders back, or make room on the others: copies follow by themselves.",
    )


def no_quorum(rules: Rules, silent: float, voters: int, here: int) -> Finding | None:
    """A node's own finding: `silent` seconds without a coordinator, and how many of the voters it is connected to."""
    if silent < rules.quorum_seconds:
        return None
    return Finding(
        AlertKind.NO_QUORUM,
        "mesh",
        Severity.CRITICAL,
        "no coordinator is known: nothing is decided until a majority of the voters is back",
        f"This node is in touch with {here} of {voters} voters." if voters else "This node knows of no voter.",
        "`mesh raft` shows who is away. Start them again with their homes; lost for ever: see the operator's guide.",
    )
