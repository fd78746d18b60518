"""Between any node and the coordinator, on behalf of a user. Each request is answered; each may be repeated."""

from protocols.codec import message
from protocols.ids import AlertId, Cid, PeerId, RunId, TestIndex
from protocols.manifests import RunSpec

PROTOCOL = "/mesh/client/1.0.0"

FOLLOW_SECONDS_MAX = 10.0
"""How long the coordinator keeps a `Follow` that has nothing to tell; and a member of the log a `Watch`."""

VERDICTS_PER_ANSWER_MAX = 4096

PLANNED_RUNS_MAX = 32
"""In one question."""

FROM_NOW_ON = -1
"""Of a `Watch`: whatever was before is of no interest."""


@message("q.submit")
class SubmitRun:
    """Accept a run. The same nonce again gives the same run. Answered once the bundle lies on enough nodes."""

    nonce: bytes
    spec: RunSpec


@message("q.submitted")
class Submitted:
    run: RunId


@message("q.cancel")
class CancelRun:
    run: RunId
    reason: str


@message("q.follow")
class Follow:
    """What happened in a run since its `cursor`-th verdict; answered when there is something, or after `wait`."""

    run: RunId
    cursor: int
    phase: str
    """The state of the run that the follower knows: a change is something to tell."""
    wait: float
    """Seconds."""


@message("q.verdicts")
class Verdicts:
    """Verdicts recorded together, in the log's order. `durations` in microseconds."""

    chunk: Cid
    worker: PeerId
    tests: tuple[TestIndex, ...]
    outcomes: bytes
    durations: tuple[int, ...]
    attempts: tuple[int, ...]


@message("q.progress")
class Progress:
    """The answer to `Follow`."""

    phase: str
    """"queued", "collecting", "running", "reporting", or the final "passed", "failed", "cancelled", "error"."""
    tests: int
    manifest: Cid | None
    holders: tuple[PeerId, ...]
    verdicts: tuple[Verdicts, ...]
    running: tuple[tuple[TestIndex, PeerId, int], ...]
    """Tests under way, where, and which attempt that is."""
    final: bytes = b""
    """The `finished` event as JSON, once the run is closed and `verdicts` holds the last of them."""


@message("q.query")
class Query:
    """A view of the coordinator's state: "mesh" (with all runs), "run", "why", "pins" (those after a root)."""

    view: str
    argument: str = ""


@message("q.plan")
class PlanRuns:
    """Where these runs would go, and how long they would take, if they were submitted now; answered with a `Document`.

    Their bundles need not exist. A run's manifest, as a file that the asking node has, says what its tests are; None:
    as in the newest run of the same.
    """

    specs: tuple[RunSpec, ...]
    manifests: tuple[Cid | None, ...]

    def __post_init__(self) -> None:
        if len(self.specs) != len(self.manifests) or not 0 < len(self.specs) <= PLANNED_RUNS_MAX:
            raise ValueError(f"from 1 to {PLANNED_RUNS_MAX} runs, each with its manifest or none")


@message("q.pin")
class PinContent:
    """Keep what the asking node has on so many nodes; answered with a `Document`, the pin."""

    root: Cid
    replicas: int
    size: int
    """Bytes."""


@message("q.unpin")
class UnpinContent:
    """Let go of what a user, or else a run that is over, had kept; answered with a `Document` that says which."""

    root: Cid


@message("q.alert")
class KnowAlert:
    """Somebody knows of an alert; answered with a `Document`, the alert."""

    alert: AlertId
    by: str


@message("q.document")
class Document:
    """JSON, under the size of a message."""

    json: bytes


@message("q.event")
class FeedEvent:
    """What one entry of the log tells those who watch the mesh (`mesh/state/feed.py`)."""

    index: int
    """Of the entry: the event's ID."""
    name: str
    run: RunId
    """`NO_RUN`: of none."""
    json: bytes
    """Its data, an object."""


@message("q.watch")
class Watch:
    """What happened since the entry `after`; any member of the log answers, once there is news or `wait` is over."""

    after: int
    wait: float
    """Seconds."""


@message("q.watched")
class Watched:
    """The answer to `Watch`: the oldest of these events, and where the member that answers stands."""

    events: tuple[FeedEvent, ...]
    head: int
    """Up to which index these are all; with `reset`, or asked `FROM_NOW_ON`: the last entry that it applied."""
    reset: bool
    """It does not know all that happened since then."""
    commit: int
    term: int
    leader: PeerId | None
    voters: tuple[PeerId, ...]
