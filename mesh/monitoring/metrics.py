"""One node's metrics: what it says of itself, and, where it coordinates, of the mesh.

Everything is read when somebody asks: no task, no clock and no lock of its own. What other nodes do is theirs to tell,
so that a sum over all nodes counts nothing twice.
"""

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import trio

from mesh.measures import Histogram, Measures
from mesh.ports import Content, Network, Nodes, ReplicatedLog
from mesh.views.metrics import Family, by, counter, gauge, histogram
from protocols.errors import MeshError
from protocols.presence import NodeState, Presence
from protocols.raft import LOG_FORMAT_NEWEST

STAT_SECONDS_MAX = 2.0
"""How long the content store (a Kubo's, perhaps) is asked for its size."""

DISTRIBUTION = "mesh-test-runner"

RAFT_STATES = ("leader", "follower", "candidate", "none")
"""A learner is a follower that does not vote; `none`: no member of the log's group."""


class Worker(Protocol):
    """This node as a worker: `mesh.worker.agent.WorkerAgent` is one."""

    @property
    def busy(self) -> int: ...


class Results(Protocol):
    """`mesh.disk.outbox.Outbox` is one."""

    def items(self) -> list[tuple[str, bytes]]: ...


class NodeMetrics:
    """`coordination`: what this node tells as a coordinator, now or before; None: it is no member of the group."""

    def __init__(
        self,
        *,
        measures: Measures,
        network: Network,
        content: Content,
        nodes: Nodes,
        group: Callable[[], ReplicatedLog | None],
        coordination: Callable[[], list[Family]],
        worker: Callable[[], Worker | None],
        outbox: Callable[[], Results | None],
        processes: Callable[[], int],
        syncs: Histogram | None,
    ) -> None:
        self.measures = measures
        self._network = network
        self._content = content
        self._nodes = nodes
        self._group = group
        self._coordination = coordination
        self._worker = worker
        self._outbox = outbox
        self._processes = processes
        self._syncs = syncs

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The page for Prometheus, in the form that it accepts, and its content type."""
        families = [
            *self._identity(),
            *self._raft(),
            *self._gossip(),
            *self._work(),
            *await self._stored(),
            *self._api(),
            *self._coordination(),
        ]
        return await trio.to_thread.run_sync(_exposed, families, accept)

    @property
    def _own(self) -> Presence:
        return self._nodes.nodes()[self._network.peer_id].presence

    def _identity(self) -> list[Family]:
        own, group = self._own, self._group()
        build = {
            "version": program_version(),
            "python": platform.python_version(),
            "log_format": str(LOG_FORMAT_NEWEST),
        }
        node = {"peer": own.peer, "name": own.name, "role": own.role.value}
        leads = group is not None and group.is_leader
        return [
            Family("mesh_build_info", "gauge", "Which program this is; always 1.", ((build, 1.0),)),
            Family("mesh_node_info", "gauge", "Which node this is; always 1.", ((node, 1.0),)),
            gauge("mesh_coordinator", "Whether this node coordinates: the mesh's own numbers are then here.", leads),
            gauge("mesh_draining", "Whether this node takes no more work.", own.draining),
        ]

    def _raft(self) -> list[Family]:
        group, measures = self._group(), self.measures.log
        status = group.status() if group is not None else None
        role = "none" if status is None else status.role.value
        told = [
            by("gauge", "mesh_raft_state", "1 for the state of this member of the log's group.", "state",
               [(state, float(state == role or (state == "candidate" and role not in RAFT_STATES)))
                for state in RAFT_STATES]),
            gauge("mesh_raft_term", "The term that this node knows of.", status.term if status else self._own.term),
            gauge("mesh_raft_has_leader", "Whether this node knows who leads.", self._knows_leader()),
            counter("mesh_raft_leader_changes", "New leaders that this member has seen.", measures.leader_changes),
            histogram("mesh_raft_commit_seconds", "From a proposal at this leader until it was applied here.",
                      measures.commits),
        ]  # fmt: skip
        if self._syncs is not None:
            told.append(histogram("mesh_raft_fsync_seconds", "Writes of the log, each synced to disk.", self._syncs))
        if status is not None:
            entries = status.last_index - status.first_index + 1
            told += [
                gauge("mesh_raft_commit_index", "The last entry of the log known to be committed.", status.commit),
                gauge("mesh_raft_applied_index", "The last entry of the log that is applied here.", status.applied),
                gauge("mesh_raft_log_entries", "Entries since the snapshot.", max(0, entries)),
                gauge("mesh_raft_voters", "Voters of the log's group.", len(status.voters)),
            ]
        return told

    def _knows_leader(self) -> bool:
        group = self._group()
        return (group.leader if group is not None else self._own.coordinator) is not None

    def _gossip(self) -> list[Family]:
        views = self._nodes.nodes()
        states = Counter(view.state for view in views.values())
        now = trio.current_time()
        ages = [now - view.heard for view in views.values() if view.state is not NodeState.DEAD]
        links = self._network.links()
        return [
            by("gauge", "mesh_nodes", "Nodes of the mesh, as this one sees them, itself included.", "state",
               [(state.value, float(states[state])) for state in NodeState]),
            gauge("mesh_gossip_age_seconds", "Since the living node heard of least lately was heard of.", max(ages)),
            gauge("mesh_connections", "Nodes that this one is connected to.", len(links)),
            gauge("mesh_connection_rtt_seconds", "The longest round-trip time to any of them; 0 without one.",
                  max((link.rtt for link in links.values()), default=0.0)),
        ]  # fmt: skip

    def _work(self) -> list[Family]:
        own, worker, outbox = self._own, self._worker(), self._outbox()
        items = outbox.items() if outbox is not None else []
        told = [
            gauge("mesh_slots", "Tests that this node runs at once, at most.", own.slots),
            gauge("mesh_running_tests", "Tests that run here, collections included.", worker.busy if worker else 0),
            gauge("mesh_runner_processes", "Processes of tests here, those that wait included.", self._processes()),
            gauge("mesh_outbox_results", "Batches of results that no coordinator has acknowledged.", len(items)),
            gauge("mesh_outbox_bytes", "And their size.", sum(len(payload) for _, payload in items)),
        ]
        for name, key, help, scale in _LOADS:
            if isinstance(value := own.load.get(key), int | float):
                told.append(gauge(name, help, value * scale))
        return [*told, *_gpus(own.load.get("gpu"))]

    async def _stored(self) -> list[Family]:
        traffic = self.measures.traffic
        answers = [("here", traffic.here), ("fetched", traffic.fetched), ("missing", traffic.missing)]
        told = [
            by("counter", "mesh_content_requests",
               "Blocks and trees asked for on this node: here already, fetched from others, or nowhere.", "result",
               [(name, float(number)) for name, number in answers]),
            counter("mesh_content_received_blocks", "Blocks that other nodes gave.", traffic.received_blocks),
            counter("mesh_content_received_bytes", "Bytes of these.", traffic.received_bytes),
            counter("mesh_content_sent_blocks", "Blocks that other nodes were given.", traffic.sent_blocks),
            counter("mesh_content_sent_bytes", "Bytes of these.", traffic.sent_bytes),
        ]  # fmt: skip
        with trio.move_on_after(STAT_SECONDS_MAX):
            try:
                stat = await self._content.stat()
            except MeshError:
                return told
            told += [
                gauge("mesh_content_blocks", "Blocks in this node's store.", stat.blocks),
                gauge("mesh_content_bytes", "Bytes of these.", stat.bytes),
                gauge("mesh_content_pins", "Roots that this node keeps.", stat.pins),
            ]
        return told

    def _api(self) -> list[Family]:
        measures = self.measures.api
        counts = tuple(
            ({"method": method, "code": str(status)}, float(number))
            for (method, status), number in sorted(measures.requests.items())
        )
        return [
            Family("mesh_api_requests", "counter", "Requests that the HTTP API answered.", counts),
            histogram("mesh_api_request_seconds", "From a request until its answer began.", measures.seconds),
        ]


_LOADS = (
    ("mesh_host_cpu_ratio", "cpu.percent", "Share of this host's processors that is busy, 0 to 1.", 0.01),
    ("mesh_host_memory_available_bytes", "memory.available", "Memory of this host that can be had.", 1),
    ("mesh_host_disk_free_bytes", "disk.free", "Room on the disk of this node's home.", 1),
)


def _gpus(devices: Any) -> list[Family]:
    """By the device's place on this host."""
    told = [(str(place), one) for place, one in enumerate(devices or ()) if isinstance(one, Mapping)]

    def of(key: str, scale: float) -> list[tuple[str, float]]:
        return [(gpu, one[key] * scale) for gpu, one in told if isinstance(one.get(key), int | float)]

    if not told:
        return []
    return [
        by("gauge", "mesh_gpu_busy_ratio", "Share of time in which a GPU was busy, 0 to 1.", "gpu",
           of("percent", 0.01)),
        by("gauge", "mesh_gpu_memory_free_bytes", "Memory of a GPU that is free.", "gpu", of("memory.free", 1)),
    ]  # fmt: skip


def program_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def _exposed(families: list[Family], accept: str) -> tuple[bytes, str]:
    from mesh.monitoring.exposition import exposed  # its library takes long to load, and many nodes are never asked

    return exposed(families, accept)
