"""Membership: the life of this node in a mesh, from its birth to its leaving. The decisions are in `mesh.birth` and
`mesh.autopilot`; this service sees, asks them, and acts.

A node that may vote goes round: resume the log on disk, or be born (found a mesh, or join one); take part; and when the
group ends for this node (the mesh gave way to another, or the node left), set the log aside and, unless it stops, begin
again. Other nodes hold no log: they follow whatever coordinator the presences tell of.

A log is set aside only when its mesh gave way by a committed entry, when a committed entry removed this node, or when
there was nothing in it. A majority of the voters that is seen in another mesh proves the first of these to a member
that was away: voters don't leave otherwise.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import trio

from mesh import autopilot, birth
from mesh.membership.steering import LOOK_SECONDS, STEP_SECONDS, Pulse, Steering, members
from mesh.ports import Clock, Group, Network, Nodes, ReplicatedLog
from protocols.codec import decode, encode
from protocols.errors import MeshError
from protocols.ids import PeerId
from protocols.membership import MEMBERSHIP_MESSAGES, PROTOCOL, Join, Joined, Leave, Left, NotHere, mesh_name
from protocols.presence import NodeState, Presence

CALL_SECONDS = 5.0
GUEST_SECONDS = 5.0
"""After which a node that the group had no room for asks again."""

EMPTY_SECONDS_MAX = 10.0
"""How long a new member waits for the log."""

LONELY_SECONDS = 3.0
"""Without a leader; then a member asks the coordinator that others tell of to take it in again."""

LINGER_SECONDS = 1.0
"""A coordinator whose mesh gave way stays that long, to pass it on."""

LEAVE_SECONDS = 5.0

log = logging.getLogger(__name__)


class Logs(Protocol):
    """The place of this node's log. `mesh.log_home.LogHome` is one."""

    async def resume(self) -> str:
        """The mesh whose log is here, empty for none; what is of no mesh is set aside."""

    async def found(self, mesh: str) -> None: ...

    async def set_aside(self) -> None: ...

    def open(self, mesh: str) -> Group: ...


class Membership:
    """`logs` is None for a node that may not vote. `member` runs for as long as the node is a member of the group that
    it is given (it may `lead` services there), and is cancelled with it."""

    def __init__(
        self,
        *,
        network: Network,
        nodes: Nodes,
        logs: Logs | None,
        clock: Clock,
        member: Callable[[Any], Awaitable[None]],
        expect: int = 1,
        targets: tuple[PeerId, ...] = (),
        solitary: bool = False,
        grace: float = autopilot.GRACE_SECONDS,
    ) -> None:
        self._network = network
        self._nodes = nodes
        self._logs = logs
        self._clock = clock
        self._member = member
        self._expect = expect
        self._targets = targets
        self._solitary = solitary
        self._grace = grace
        self._me = network.peer_id
        self._group: Group | None = None
        self._steering: Steering | None = None
        """There whenever `_group` is."""
        self._guest_of = ""
        """The mesh that this node belongs to without a log."""
        self._heading = ""
        self._former: frozenset[str] = frozenset()
        self._conflicts: tuple[str, ...] = ()
        self._connected_at = trio.current_time()
        self._pulse = Pulse()
        self._leaving = trio.Event()
        self._left = trio.Event()
        network.watch(self._connection)
        network.on_call(PROTOCOL, self._answer)

    # What is so

    @property
    def group(self) -> ReplicatedLog | None:
        """The log that this node takes part in."""
        return self._group

    @property
    def mesh(self) -> str:
        return self._group.mesh if self._group is not None else self._guest_of

    @property
    def coordinator(self) -> PeerId | None:
        """Who coordinates this node's mesh: by its own log, or by what others tell."""
        group = self._group
        if group is not None and group.leader is not None:
            return group.leader
        return birth.coordinator_of(self._present(), self.mesh, group.term if group is not None else 0)

    @property
    def conflicts(self) -> tuple[str, ...]:
        """Other meshes here that have runs, as this one has: they go on side by side."""
        return self._conflicts

    def _present(self, connected: bool = False) -> tuple[Presence, ...]:
        """Presences of those who are here, this node included (without it, if only connected ones are wanted)."""
        return tuple(
            view.presence
            for peer, view in sorted(self._nodes.nodes().items())
            if view.state in (NodeState.ALIVE, NodeState.DRAINING)
            and (not connected or (view.connected and peer != self._me))
        )

    # Running

    async def run(self) -> None:
        """Until cancelled. A `StorageError` of the log ends it: the node must stop."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pulse.follow, self._nodes)
            nursery.start_soon(self._advertise)
            if self._logs is not None:
                await self._live(self._logs)

    async def _live(self, logs: Logs) -> None:
        while not self._leaving.is_set():
            mesh = await logs.resume() or await self._be_born(logs)
            log.info("taking part in mesh %s", mesh)
            reason = await self._take_part(logs.open(mesh))
            log.warning("out of mesh %s: %s", mesh, reason)
            await logs.set_aside()
        self._left.set()

    async def _be_born(self, logs: Logs) -> str:
        """The mesh that this node founded, or that took it in."""
        start = trio.current_time()
        asked = -GUEST_SECONDS
        said = ""
        while True:
            since = self._pulse.count
            decision = birth.decide(self._scene(start))
            if isinstance(decision, birth.FoundMesh):
                mesh = mesh_name(int(self._clock.now() * 1e9), self._me)
                await logs.found(mesh)
                return mesh
            if isinstance(decision, birth.JoinMesh):
                patient = self._guest_of == decision.mesh and trio.current_time() - asked < GUEST_SECONDS
                if not patient and await self._join(decision.mesh, decision.coordinator):
                    self._heading = ""
                    return decision.mesh
                asked = asked if patient else trio.current_time()
            elif decision.reason != said:
                said = decision.reason
                log.info("not in a mesh yet: %s", said)
            await self._pulse.wait(since, STEP_SECONDS)

    def _scene(self, start: float) -> birth.Scene:
        now = trio.current_time()
        views = self._nodes.nodes()
        return birth.Scene(
            me=self._me,
            elapsed=now - start,
            quiet=now - self._connected_at,
            neighbours=tuple(presence for presence in self._present(connected=True) if not presence.draining),
            strangers=sum(peer not in views for peer in self._network.links()),
            expect=self._expect,
            targets=self._targets,
            heading=self._heading,
            former=self._former,
            solitary=self._solitary,
        )

    async def _join(self, mesh: str, coordinator: PeerId) -> bool:
        """Whether this node is a member now."""
        answer = await self._ask(coordinator, Join(mesh))
        if isinstance(answer, Joined) and answer.mesh == mesh:
            self._guest_of = "" if answer.member else mesh
            return answer.member
        return False

    async def _ask(self, coordinator: PeerId, request: Join | Leave) -> Joined | Left | NotHere | None:
        try:
            payload = await self._network.call(coordinator, PROTOCOL, encode(request), CALL_SECONDS)
            answer: Joined | Left | NotHere = decode(payload, Joined, Left, NotHere)
        except MeshError as error:
            log.info("%s did not take %s: %s", coordinator, type(request).__name__, error)
            await trio.sleep(STEP_SECONDS)
            return None
        if isinstance(answer, NotHere):
            log.info("%s refused %s: %s", coordinator, type(request).__name__, answer.reason)
            await trio.sleep(STEP_SECONDS)
        return answer

    async def _take_part(self, group: Group) -> str:
        """Until this node's part in the group is over; why it is."""
        steering = Steering(
            me=self._me,
            group=group,
            nodes=self._nodes,
            pulse=self._pulse,
            others=lambda: {} if self._solitary else self._others(group.mesh),
            grace=self._grace,
        )
        self._group, self._steering = group, steering
        self._pulse.beat()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group.run)
                nursery.start_soon(self._pulse.follow, group)
                nursery.start_soon(self._member, group)
                nursery.start_soon(group.lead, steering.run)
                reason = await self._until_over(group)
                nursery.cancel_scope.cancel()
        finally:
            self._group = self._steering = None
        return reason

    async def _until_over(self, group: Group) -> str:
        start = led = asked = trio.current_time()
        while not self._leaving.is_set():
            since, now = self._pulse.count, trio.current_time()
            if group.leader is not None and self._me in members(group):
                led = now
            if group.applied and group.state.yielded:
                if group.is_leader and len(members(group)) > 1:
                    await trio.sleep(LINGER_SECONDS)
                return self._give_way(group.mesh, group.state.yielded)
            if not group.applied and now - start > EMPTY_SECONDS_MAX:
                return "its coordinator sent no log"
            if group.leader is None and (elsewhere := self._moved(group)):
                return self._give_way(group.mesh, elsewhere)
            if now - led > LONELY_SECONDS and now - asked > LONELY_SECONDS:
                asked = now
                coordinator = birth.coordinator_of(self._present(connected=True), group.mesh, group.term)
                if coordinator is not None:
                    await self._ask(coordinator, Join(group.mesh))
            await self._pulse.wait(since, LOOK_SECONDS)
        return "this node leaves"

    def _give_way(self, mesh: str, to: str) -> str:
        self._heading = to
        self._former |= {mesh}
        return f"it gave way to {to}"

    def _moved(self, group: Group) -> str:
        """The mesh that a majority of this group's voters is in now, if it is another one."""
        voters = group.configuration.voters
        views = self._nodes.nodes()
        present = [
            views[peer].presence
            for peer in voters
            if peer != self._me and peer in views and views[peer].state is not NodeState.DEAD
        ]
        elsewhere = [
            each.mesh for each in present if each.raft and each.mesh != group.mesh and birth.is_mesh(each.mesh)
        ]
        return max(elsewhere, key=elsewhere.count) if voters and 2 * len(elsewhere) > len(voters) else ""

    def _connection(self, peer: PeerId, connected: bool) -> None:
        if connected:
            self._connected_at = trio.current_time()
        elif self._group is not None:
            self._group.suspect(peer)

    # Telling

    async def _advertise(self) -> None:
        while True:
            since, group = self._pulse.count, self._group
            if group is None:
                if self._logs is None or self._guest_of:
                    self._guest_of = self._followed()
                self._nodes.update(mesh=self._guest_of, raft="", term=0, coordinator=self.coordinator, runs=0)
            else:
                configuration = group.configuration
                runs = len(group.state.runs) + len(group.state.archive)
                self._nodes.update(
                    mesh=group.mesh,
                    raft="voter" if self._me in configuration.voters else "learner",
                    term=group.term,
                    coordinator=self._me if group.is_leader else _other(group.leader, self._me),
                    runs=runs,
                )
                self._notice_conflicts(group.mesh, runs)
            await self._pulse.wait(since, LOOK_SECONDS)

    def _followed(self) -> str:
        """The mesh of a node without a log: the one it is in while that is there, else the preferred one."""
        meshes = birth.meshes_of(self._present(connected=True), self._former)
        return self._guest_of if self._guest_of in meshes or not meshes else birth.eldest(meshes)

    def _others(self, mesh: str) -> Mapping[str, int]:
        """Other meshes here whose coordinator this node is connected to, and their runs."""
        present = self._present(connected=True)
        meshes = birth.meshes_of(present, self._former | {mesh})
        return {other: runs for other, runs in meshes.items() if birth.coordinator_of(present, other)}

    def _notice_conflicts(self, mesh: str, runs: int) -> None:
        conflicts = birth.conflicts_with(runs, self._others(mesh))
        for other in set(conflicts) - set(self._conflicts):
            log.warning("mesh %s is here too, and both have runs: they go on side by side, and never merge", other)
        self._conflicts = conflicts

    async def _answer(self, peer: PeerId, payload: bytes) -> bytes:
        request = decode(payload, *MEMBERSHIP_MESSAGES)
        group, steering = self._group, self._steering
        if group is None or steering is None or not group.is_leader or not isinstance(request, Join | Leave):
            return encode(NotHere("this node does not coordinate", self.mesh, self.coordinator))
        if request.mesh != group.mesh or group.state.yielded:
            return encode(NotHere(f"this is mesh {group.mesh}", group.state.yielded or group.mesh, self._me))
        return encode(await (steering.admit(peer) if isinstance(request, Join) else steering.dismiss(peer)))

    # Leaving

    async def leave(self) -> bool:
        """Before this node stops: hand over the leadership, and be taken out of the group. Whether that was done within
        `LEAVE_SECONDS`; if not (no majority, or nobody else), the log stays, and the node comes back as what it was."""
        self._nodes.update(draining=True)
        group, steering = self._group, self._steering
        if group is None or steering is None:
            return True
        with trio.move_on_after(LEAVE_SECONDS):
            while not await self._step_out(group, steering):
                if group.is_leader and steering.successor() is None:
                    return False
                await trio.sleep(STEP_SECONDS / 5)
            with trio.move_on_after(STEP_SECONDS * 4):
                while self._me in members(group):
                    await group.wait_changed(group.version)
            self._leaving.set()
            self._pulse.beat()
            await self._left.wait()
            return True
        return False

    async def _step_out(self, group: Group, steering: Steering) -> bool:
        try:
            if group.is_leader:
                await steering.hand_over()
            elif group.leader is not None:
                return isinstance(await self._ask(group.leader, Leave(group.mesh)), Left)
        except MeshError as error:
            log.info("still in the group: %s", error)
        return False


def _other(leader: PeerId | None, me: PeerId) -> PeerId | None:
    """A leader that has not opened its term yet coordinates nothing."""
    return None if leader == me else leader
