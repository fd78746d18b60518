"""From what a disk holds to the state, and the one place where an entry of the log is read as a command.

What this version does not know stops it with a sentence: a member that skipped an entry would hold another state than
the rest, and nobody would notice.
"""

from collections.abc import Sequence

from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.state.snapshot import check_format, decode_state
from protocols.codec import decode
from protocols.commands import COMMANDS, Command, RaiseFormat
from protocols.errors import RemoteProtocolError, StorageError
from protocols.raft import Entry, EntryKind, Snapshot


def command_of(entry: Entry) -> Command | None:
    """What the entry decides; None for one of Raft's own. `StorageError` if this version can't tell."""
    if entry.kind is not EntryKind.NORMAL:
        return None
    try:
        command: Command = decode(entry.data, *COMMANDS)
        if isinstance(command, RaiseFormat):
            check_format(command.version)
    except RemoteProtocolError as error:
        raise StorageError(
            f"entry {entry.index} of the log holds what this version does not know ({error}): update this node"
        ) from None
    return command


def state_of(snapshot: Snapshot) -> CoordinatorState:
    """`StorageError` if it can't be read."""
    try:
        return decode_state(snapshot.data)
    except RemoteProtocolError as error:
        raise StorageError(f"the snapshot at {snapshot.index} can't be read ({error}): update this node") from None


def replay(snapshot: Snapshot | None, entries: Sequence[Entry]) -> CoordinatorState:
    """The state after the last of `entries`, which follow the snapshot."""
    state = state_of(snapshot) if snapshot is not None else CoordinatorState()
    for entry in entries:
        command = command_of(entry)
        if command is not None:
            apply(state, entry.index, command)
    return state
