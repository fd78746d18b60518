"""Campaigning. A pre-candidate asks whether it would win, and disturbs nobody (thesis, section 9.6); a candidate opens
the term and asks for votes. Its own vote counts once it is on disk, like anybody's."""

from typing import ClassVar

from mesh.raft import quorum
from mesh.raft.errors import NotLeader
from mesh.raft.member import Member
from mesh.raft.quorum import VoteResult
from mesh.raft.roles import (
    BecomeCandidate,
    BecomeFollower,
    BecomeLeader,
    BecomePreCandidate,
    Role,
    RoleName,
    Transition,
)
from protocols.ids import PeerId
from protocols.raft import PreVote, PreVoteReply, RaftMessage, Vote, VoteReply


class Campaign(Role):
    """What both kinds share: votes, and a timer after which everything starts again."""

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        self.votes: dict[PeerId, bool] = {}
        member.leader = None
        member.reset_timer()

    def tick(self) -> Transition | None:
        self.member.elapsed += 1
        if self.member.elapsed < self.member.timeout:
            return None
        return BecomePreCandidate() if self.member.electable else BecomeFollower(self.member.term, None)

    def read(self, context: int) -> None:
        raise NotLeader(None)

    def _ask(self, request: PreVote | Vote) -> None:
        for peer in quorum.voters(self.member.configuration):
            if peer != self.member.peer:
                self.member.send(peer, request)

    def _count(self, voter: PeerId, granted: bool) -> VoteResult:
        """A voter's first answer counts: a repeated one is the same anyway."""
        self.votes.setdefault(voter, granted)
        return quorum.vote_result(self.member.configuration, self.votes)


class PreCandidate(Campaign):
    name: ClassVar[RoleName] = RoleName.PRE_CANDIDATE

    def enter(self) -> Transition | None:
        log = self.member.log
        self._ask(PreVote(self.member.term + 1, log.last_index, log.last_term))
        return self._decide(self.member.peer, True)

    def step(self, sender: PeerId, message: RaftMessage) -> Transition | None:
        match message:
            case PreVoteReply(term, granted):
                if granted and term != self.member.term + 1:
                    return None  # of an earlier campaign
                return self._decide(sender, granted)
        return None

    def _decide(self, voter: PeerId, granted: bool) -> Transition | None:
        match self._count(voter, granted):
            case VoteResult.WON:
                return BecomeCandidate(transfer=False)
            case VoteResult.LOST:
                return BecomeFollower(self.member.term, None)
            case VoteResult.PENDING:
                return None


class Candidate(Campaign):
    name: ClassVar[RoleName] = RoleName.CANDIDATE

    def __init__(self, member: Member, transfer: bool) -> None:
        super().__init__(member)
        self.transfer = transfer
        member.enter_term(member.term + 1)
        member.vote = member.peer

    def enter(self) -> Transition | None:
        log = self.member.log
        self._ask(Vote(self.member.term, log.last_index, log.last_term, self.transfer))
        return None

    def step(self, sender: PeerId, message: RaftMessage) -> Transition | None:
        match message:
            case VoteReply(_, granted):
                return self._decide(sender, granted)
        return None

    def synced(self, term: int, vote: PeerId | None) -> Transition | None:
        if (term, vote) != (self.member.term, self.member.peer):
            return None  # that save began before this election
        return self._decide(self.member.peer, True)

    def _decide(self, voter: PeerId, granted: bool) -> Transition | None:
        """A vote that somebody else has may be a split, which nobody wins: then all try again in turns, and not after
        a timeout each."""
        again = granted or voter in self.votes
        match self._count(voter, granted):
            case VoteResult.WON:
                return BecomeLeader()
            case VoteResult.LOST:
                return BecomeFollower(self.member.term, None, split=True)
            case VoteResult.PENDING:
                if not again:
                    self.member.take_turn(gone=None, missed=1)
                return None
