"""Answering requests for votes: the same in every role (sections 5.2 and 5.4.1; thesis, sections 4.2.3 and 9.6).

A blank member gives no vote: it might have given one before it lost its disk. That costs no liveness, since voters are
founders, who wrote the configuration, or were learners that the leader knew to hold a log.
"""

from mesh.raft.member import Member
from protocols.ids import PeerId
from protocols.raft import PreVote, PreVoteReply, Vote, VoteReply


def ignores(member: Member, message: Vote) -> bool:
    """A member that hears its leader does not even look at the term of a candidate, unless the leader sent it."""
    return message.term > member.term and member.loyal and not message.transfer


def answer_pre_vote(member: Member, sender: PeerId, message: PreVote) -> None:
    """Always answered, also at a low term: a pre-candidate that is behind learns the term only from this."""
    wanted = message.term > member.term or (message.term == member.term and _free(member, sender))
    if wanted and not member.loyal and _worthy(member, message):
        member.send(sender, PreVoteReply(message.term, granted=True))
    else:
        member.send(sender, PreVoteReply(member.term, granted=False))


def answer_vote(member: Member, sender: PeerId, message: Vote) -> None:
    """At the member's own term, or a lower one."""
    if message.term == member.term and _free(member, sender) and _worthy(member, message):
        member.vote = sender
        member.elapsed = 0
        member.send(sender, VoteReply(member.term, granted=True))
    else:
        member.send(sender, VoteReply(member.term, granted=False))


def _free(member: Member, sender: PeerId) -> bool:
    return member.vote == sender or (member.vote is None and member.leader is None)


def _worthy(member: Member, message: PreVote | Vote) -> bool:
    return not member.blank and member.log.up_to_date(message.last_index, message.last_term)
