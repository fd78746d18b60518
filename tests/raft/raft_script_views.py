"""How scripts print what they see: entries, configurations, messages, a Ready, what a leader knows of members."""

from dataclasses import fields, is_dataclass

from mesh.raft.progress import Installing, Probing, Progress
from mesh.raft.ready import Configuration, Entry, EntryKind, Ready
from protocols.codec import decode
from protocols.ids import PeerId
from protocols.raft import RaftMessage


def show_entry(entry: Entry) -> str:
    if entry.kind is EntryKind.CONFIGURATION:
        text = show_configuration(decode(entry.data, Configuration))
    elif entry.kind is EntryKind.NOOP:
        text = "noop"
    else:
        text = entry.data.decode() if len(entry.data) < 12 else f"{len(entry.data)}B"
    return f"{entry.index}/{entry.term}:{text}"


def show_configuration(configuration: Configuration) -> str:
    parts = ["".join(configuration.voters) or "none"]
    if configuration.outgoing:
        parts.append("&" + "".join(configuration.outgoing))
    if configuration.learners:
        parts.append("+" + "".join(configuration.learners))
    return "{" + "".join(parts) + "}"


def show_value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(map(show_value, value)) + "]"
    if isinstance(value, Entry):
        return show_entry(value)
    if isinstance(value, Configuration):
        return show_configuration(value)
    return f"{len(value)}B" if isinstance(value, bytes) else str(value)


def show_message(sender: PeerId, to: PeerId, message: RaftMessage) -> str:
    assert is_dataclass(message)
    shown = " ".join(f"{f.name}={show_value(getattr(message, f.name))}" for f in fields(message))
    return f"{sender}->{to} {type(message).__name__} {shown}"


def show_ready(ready: Ready) -> list[str]:
    lines = []
    if ready.hard_state is not None:
        hard = ready.hard_state
        lines.append(f"  save term {hard.term} vote {hard.vote or '-'} commit {hard.commit}")
    if ready.snapshot is not None:
        lines.append(f"  save snapshot {ready.snapshot.index}/{ready.snapshot.term}")
    if ready.entries:
        lines.append("  save " + " ".join(map(show_entry, ready.entries)))
    if ready.committed:
        lines.append("  apply " + " ".join(map(show_entry, ready.committed)))
    lines += [f"  read {read.context} at {read.index}" for read in ready.reads]
    lines += [f"  read {context} failed" for context in ready.reads_failed]
    lines += ["  wants a newer snapshot"] * ready.snapshot_wanted
    for when, messages in (("now", ready.messages), ("after sync", ready.messages_after_sync)):
        lines += [f"  {when}: {show_message(PeerId(''), to, message)}" for to, message in messages]
    return lines


def show_progress(peer: PeerId, progress: Progress) -> str:
    flow = progress.flow
    if isinstance(flow, Probing):
        how = "probing, waiting" if flow.waiting else "probing"
    elif isinstance(flow, Installing):
        how = f"installing {flow.offset} of {len(flow.snapshot.data)} B at {flow.snapshot.index}"
    else:
        how = f"replicating, in flight {len(flow.inflight)} ({flow.inflight_bytes} B)"
    return f"{peer} match {progress.match} next {progress.next} {how}"
