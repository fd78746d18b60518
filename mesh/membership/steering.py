"""What the coordinator does for its group: the autopilot, giving way to another mesh, and those who come and go.

The decisions are in `mesh.autopilot` and `mesh.birth`. One change of the group at a time: whoever comes or goes waits
for the one before, and decides anew then.
"""

import logging
from collections.abc import Callable, Mapping

import trio

from mesh import autopilot, birth
from mesh.autopilot import LEARNERS_MAX, Seat
from mesh.ports import Group, Nodes, NodeView, ReplicatedLog
from mesh.raft.configuration import AddLearner, Change, Promote, Remove, Replace
from mesh.raft.errors import ChangeRefused
from protocols.commands import RaiseFormat, Yield
from protocols.errors import MeshError
from protocols.ids import PeerId
from protocols.membership import Joined, Left, NotHere
from protocols.presence import NodeState

STEP_SECONDS = 0.25
"""How often a node without a mesh looks again when nothing tells it to; also the pause before a failed step is tried
again."""

LOOK_SECONDS = 0.5
"""The same for a node in a mesh."""

BUSY_SECONDS = 3.0
"""How long a change of the group waits for the one before it."""

log = logging.getLogger(__name__)


class Pulse:
    """Beats whenever one of the sources that it follows changed: several loops wait for it, and it costs one task a
    source. (A nursery for each wait would be the larger part of what an idle node does.)"""

    def __init__(self) -> None:
        self.count = 0
        self._beaten = trio.Event()

    async def follow(self, source: ReplicatedLog | Nodes) -> None:
        version = source.version
        while True:
            version = await source.wait_changed(version)
            self.beat()

    def beat(self) -> None:
        self.count += 1
        self._beaten.set()
        self._beaten = trio.Event()

    async def wait(self, since: int, timeout: float) -> None:
        """Until `count` is over `since`, or `timeout` seconds passed."""
        if self.count > since:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(timeout):
            await self._beaten.wait()


def members(group: Group) -> frozenset[PeerId]:
    """Voters, those on their way out too, and learners."""
    configuration = group.configuration
    return frozenset(configuration.voters + configuration.outgoing + configuration.learners)


class Steering:
    """Of one group, by its leader. `others` tells of the other meshes here, and of their runs."""

    def __init__(
        self,
        *,
        me: PeerId,
        group: Group,
        nodes: Nodes,
        pulse: Pulse,
        others: Callable[[], Mapping[str, int]],
        grace: float,
    ) -> None:
        self._me = me
        self._group = group
        self._nodes = nodes
        self._pulse = pulse
        self._others = others
        self._grace = grace
        self._changing = trio.Lock()
        self._kept_up: dict[PeerId, float] = {}
        """Since when a member's log is nearly the leader's; on trio's clock."""
        self._unseen: dict[PeerId, float] = {}
        """Since when nobody tells of a member."""

    async def run(self) -> None:
        """While this node leads: whenever something changed, at most one step."""
        self._kept_up.clear()
        self._unseen.clear()
        while True:
            since = self._pulse.count
            try:
                await self._step()
            except MeshError as error:
                log.info("the group was not changed: %s", error)
                await trio.sleep(STEP_SECONDS)
            await self._pulse.wait(since, LOOK_SECONDS)

    async def _step(self) -> None:
        group = self._group
        to = birth.yields_to(group.mesh, len(group.state.runs) + len(group.state.archive), self._others())
        if to and not group.state.yielded:
            log.warning("this mesh, without runs, gives way to %s", to)
            await group.propose(Yield(to))
            return
        reads = {peer: autopilot.reads_format(view.presence) for peer, view in self._nodes.nodes().items()}
        due = autopilot.format_due(group.state.format, members(group), reads)
        if due is not None:
            log.info("every member reads format %d of the log: it is in force from now on", due)
            await group.propose(RaiseFormat(due))
        seats = self._seats()
        change = autopilot.decide(self._me, group.configuration, seats, self._grace)
        if change is not None and not self._changing.locked():
            async with self._changing:
                log.info("changing the group: %s", change)
                await group.change(change)

    def _seats(self) -> dict[PeerId, Seat]:
        status = self._group.status()
        now = trio.current_time()
        views = self._nodes.nodes()
        for peer, seen in status.peers.items():
            if seen.active and seen.match and seen.match + autopilot.LAG_ENTRIES_MAX >= status.commit:
                self._kept_up.setdefault(peer, now)
            else:
                self._kept_up.pop(peer, None)
        for peer in members(self._group):
            if peer in views:
                self._unseen.pop(peer, None)
            else:
                self._unseen.setdefault(peer, now)
        return {peer: self._seat(peer, views.get(peer), now) for peer in members(self._group)}

    def _seat(self, peer: PeerId, view: NodeView | None, now: float) -> Seat:
        if view is None:
            return Seat(peer, host="", alive=False, draining=False, dead_for=now - self._unseen[peer])
        presence = view.presence
        return Seat(
            peer,
            host=str(presence.capabilities.get("hostname", presence.name)),
            alive=view.state in (NodeState.ALIVE, NodeState.DRAINING),
            draining=presence.draining,
            dead_for=now - view.since if view.state is NodeState.DEAD else 0.0,
            kept_up_for=now - self._kept_up.get(peer, now),
        )

    async def admit(self, peer: PeerId) -> Joined | NotHere:
        """A node that can't read the log works without one."""
        group = self._group
        if peer not in members(group):
            view = self._nodes.nodes().get(peer)
            if view is None:
                return NotHere("nothing is known of that node yet", group.mesh, self._me)
            if autopilot.reads_format(view.presence) < group.state.format:
                log.warning("%s can't read the log, in format %d: update that node", peer, group.state.format)
                return Joined(group.mesh, member=False)
            if len(group.configuration.learners) >= LEARNERS_MAX:
                return Joined(group.mesh, member=False)
            await self._change(lambda: None if peer in members(group) else AddLearner(peer))
        return Joined(group.mesh, member=True)

    async def dismiss(self, peer: PeerId) -> Left | NotHere:
        """A voter hands its seat to a spare, if there is one. It keeps it while those who would vote without it are no
        majority of themselves: such a group could never commit anything again, nor take anybody back."""
        group = self._group
        refusals: list[str] = []

        def change() -> Change | None:
            refusals.clear()
            if peer not in members(group):
                return None
            if peer not in group.configuration.voters:
                return Remove(peer)
            seats = self._seats()
            spares = [each for each in group.configuration.learners if each != peer and seats[each].healthy]
            match = group.status().peers
            kept = [each for each in spares if each in match and match[each].match >= group.status().commit][:1]
            staying = [each for each in group.configuration.voters if each != peer] + kept
            if 2 * sum(self._is_here(each, seats[each]) for each in staying) <= len(staying):
                refusals.append("those who would stay are no majority" if staying else "the last voter can't leave")
                return None
            return Replace(peer, by=kept[0]) if kept else Remove(peer)

        await self._change(change)
        return NotHere(refusals[0], group.mesh, self._me) if refusals else Left()

    def _is_here(self, peer: PeerId, seat: Seat) -> bool:
        seen = self._group.status().peers.get(peer)
        return peer == self._me or (seat.alive and seen is not None and seen.active)

    async def _change(self, change: Callable[[], Change | None]) -> None:
        """Make a change, decided anew whenever another one was under way."""
        deadline = trio.current_time() + BUSY_SECONDS
        async with self._changing:
            while (wanted := change()) is not None:
                try:
                    await self._group.change(wanted)
                    return
                except ChangeRefused:
                    if trio.current_time() > deadline:
                        raise
                    await trio.sleep(STEP_SECONDS / 5)

    async def hand_over(self) -> bool:
        """Make another member the leader, a voter first if it has to be; False if there is nobody."""
        successor = self.successor()
        if successor is None:
            return False
        if successor not in self._group.configuration.voters:
            await self._change(lambda: Promote(successor))
        await self._group.transfer(successor)
        return True

    def successor(self) -> PeerId | None:
        """The healthy member that has most of the log; voters first."""
        status, views = self._group.status(), self._nodes.nodes()
        fit = [
            (peer in status.voters, seen.match, peer)
            for peer, seen in sorted(status.peers.items())
            if seen.active and seen.match and peer in views and not views[peer].presence.draining
        ]
        return max(fit)[2] if fit else None
