"""What clients and operators do with a simulated group of cores: propose, read, change it, mend it, and wait."""

from mesh.raft.configuration import Change
from mesh.raft.errors import ChangeRefused, NotLeader, Overloaded
from mesh.raft.raft import RoleName
from tests.simulation.life import Violation
from tests.simulation.raft_rig import TICK_MS, Rig, Weather
from tests.simulation.raft_safety import Node

PROGRESS_MS_MAX = 20_000
"""From a heal to a proposal that is applied everywhere, and a read."""
SYNC_MS = 2
"""Of a sound disk."""


class Group(Rig):
    # Clients

    def leader(self) -> Node | None:
        """Who leads the newest term, if anybody."""
        leading = [node for node in self.alive() if node.raft and node.raft._role.name is RoleName.LEADER]
        return max(leading, key=lambda node: node.term, default=None)

    def propose(self, node: Node, data: bytes) -> int | None:
        assert node.raft is not None
        self.touch(node)
        try:
            index = node.raft.propose(data)
        except (NotLeader, Overloaded):
            return None
        self.settle(node)
        return index

    def read(self, node: Node) -> None:
        assert node.raft is not None
        self.touch(node)
        self._context += 1
        node.asked[self._context] = self.safety.last_committed
        try:
            node.raft.read_index(self._context)
        except (NotLeader, Overloaded):
            del node.asked[self._context]
            return
        self.settle(node)

    def change(self, node: Node, change: Change) -> bool:
        assert node.raft is not None
        self.touch(node)
        try:
            node.raft.propose_change(change)
        except (NotLeader, ChangeRefused):
            return False
        self.tell(f"{node.peer} proposes {change}")
        self.settle(node)
        return True

    # Healing

    def mend(self) -> None:
        """No more faults but for those who are down."""
        self.weather = Weather()
        for node in self.nodes.values():
            if node.period_ms != TICK_MS:
                self.set_clock(node, TICK_MS)
            self.mend_disk(node)

    def mend_disk(self, node: Node) -> None:
        hung, node.sync_ms, node.medium.full = node.sync_ms is None, SYNC_MS, False
        if hung and node.saving is not None:
            self.at(self.now + 1).append((self._synced, node, node.life, node.saving))

    def demand_progress(self, whom: str) -> Node:
        """A proposal must get to every member that is up, and a read must be answered; who leads then."""
        deadline = self.now + PROGRESS_MS_MAX
        goal: int | None = None
        term = 0
        while self.now < deadline:
            self.advance(100)
            leader = self.leader()
            if leader is None or leader.raft is None:
                continue
            if goal is None or term != leader.term:  # what an earlier leader took may be gone with it
                goal, term = self.propose(leader, b"after the heal"), leader.term
            now = leader.raft._member.configuration
            members = [self.nodes[peer] for peer in {*now.voters, *now.outgoing, *now.learners}]
            if self._read_works(leader) and goal and all(node.raft is None or node.index >= goal for node in members):
                return leader
        raise Violation(f"no progress of {whom} {PROGRESS_MS_MAX / 1000:.0f} s after the heal")

    def _read_works(self, leader: Node) -> bool:
        before = self.reads_served
        self.read(leader)
        self.advance(50)
        return self.reads_served > before
