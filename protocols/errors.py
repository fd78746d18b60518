"""The one error tree. Each class carries the exit code that a command ends with when it escapes.

`LocalProtocolError` is our own bug or misuse, `RemoteProtocolError` is what a peer did wrong (the split is h11's).
Everything else a user can meet is a `MeshError` whose text is one clear sentence that names the thing.
"""

from collections.abc import Callable


class MeshError(Exception):
    """Root of every error that this project raises on purpose; exit code 3 unless a subclass says otherwise."""

    exit_code = 3


class UsageError(MeshError):
    """A wrong flag, path, CID, ticket, requirement or marker: said before anything is submitted."""

    exit_code = 4


class NoCapableWorker(MeshError):
    """No worker meets a requirement, and none is coming."""

    exit_code = 10


class NoQuorum(MeshError):
    """The mesh has no coordinator that a majority of its voters backs."""

    exit_code = 11


class OutcomeUnknown(NoQuorum):
    """Leadership or the majority was lost while a command was under way: it may take effect, or it may not."""


class MeshFailed(MeshError):
    """The mesh, not a test, failed the run."""

    exit_code = 12


class NotAuthorised(MeshError):
    """A wrong swarm key or API token."""

    exit_code = 13


class NodeUnavailable(MeshError):
    """A node, ours or a peer, could not be reached in time."""

    exit_code = 12


class HomeInUse(MeshError):
    """Another process has this home open."""

    exit_code = 4


class StorageError(MeshError):
    """The disk is full, or what it holds is damaged: stop with a sentence, never guess."""


class ContentNotFound(MeshError):
    """No reachable node has the block, within the time given."""

    exit_code = 12


class ProtocolError(MeshError):
    """Something is wrong with bytes that crossed a process boundary."""

    exit_code = 12


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol does not allow: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """A peer, or a file, gave us what the protocol does not allow."""


class RemoteCallError(MeshError):
    """A peer answered a call with a refusal; the text is the peer's, and so is the exit code that it means."""

    exit_code = 12

    def __init__(self, text: str, exit_code: int = 12) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def is_ours(error: BaseException) -> bool:
    """Whether it was raised on purpose."""
    return isinstance(error, MeshError)


def cause(error: BaseException, wanted: Callable[[BaseException], bool] = is_ours) -> BaseException:
    """What an exception group is about: the first error in it that is `wanted`, however deep, else the first of all."""
    known = error.subgroup(wanted) if isinstance(error, BaseExceptionGroup) else None
    found: BaseException = error if known is None else known
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
