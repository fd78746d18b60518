"""What the HTTP API asks of the node behind it."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from mesh.measures import Measures
from mesh.views.tests_table import Wanted
from protocols.ids import Cid, RunId
from protocols.manifests import Record, RunSpec
from protocols.work import CommandVerb


class Metrics(Protocol):
    """What a node counts, for `/metrics`."""

    @property
    def measures(self) -> Measures: ...

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The page for Prometheus, in a form that the header `accept` allows, and its content type."""


class Feed(Protocol):
    """What happens in the mesh, as it happens."""

    @property
    def as_of(self) -> float | None:
        """When what this node knows of the mesh was last known to be agreed on, seconds since the epoch."""

    def listen(self, after: int | None) -> AsyncGenerator[bytes, None]:
        """Server-sent events after the one with that ID (None: from now on), some in each piece; see docs/api.md.
        `MeshFailed`: too many listen already."""

    async def ready(self) -> list[str]:
        """What keeps this node from being of use now, in sentences; nothing, if it follows a coordinator."""


class Details(Protocol):
    """What goes on in a run, and what waits. Documents say whether they are agreed on (`agreed`) and as of when; long
    ones come as JSON."""

    async def tests(self, run: RunId, wanted: Wanted) -> bytes: ...

    async def test(self, run: RunId, index: int) -> dict[str, Any]:
        """One test, with the records of all its tries."""

    async def timeline(self, run: RunId) -> bytes: ...

    async def queue(self) -> bytes: ...


class Backend(Protocol):
    """What the HTTP API shows and does: one node's view of the mesh, forwarded to the coordinator where needed.

    Documents are plain JSON data, as interface.md and docs/api.md give them. Every method may raise a `MeshError`.
    """

    @property
    def feed(self) -> Feed: ...

    @property
    def details(self) -> Details: ...

    async def status(self) -> dict[str, Any]: ...

    async def ticket(self) -> str: ...

    async def topology(self) -> dict[str, Any]: ...

    async def overview(self) -> dict[str, Any]:
        """What the pictures are drawn from: nodes, runs and recent verdicts."""

    async def raft(self) -> dict[str, Any]:
        """The group that keeps the log, as its leader sees it; without one, as this node does, and says so."""

    async def snapshot(self) -> bytes:
        """The file of `mesh snapshot save`: all that was committed when it was asked for. `NoQuorum`."""

    async def runs(self) -> dict[str, Any]:
        """The newest "runs", the oldest first, with "agreed" and "as_of" as the status has them."""

    async def run(self, run: RunId) -> dict[str, Any]: ...

    async def submit(self, nonce: bytes, spec: RunSpec) -> RunId: ...

    async def cancel(self, run: RunId) -> None: ...

    def follow(self, run: RunId, cursor: int = 0, whole: bool = False) -> AsyncIterator[dict[str, Any]]:
        """The run's events from `cursor` on, as interface.md names them, each with its own "cursor"; ends after
        "finished". `whole`: verdicts carry what pytest told of their tests. Survives a change of coordinator."""

    def output(self, run: RunId, test: str) -> AsyncIterator[dict[str, Any]]:
        """What `test`, or those tests whose IDs hold that text, print while they run ("output": "test", "stream",
        "text"), and their verdicts; "ended" with the run, or the one test named. `UsageError` if there is none."""

    async def why(self, target: str) -> dict[str, Any]: ...

    async def plan(self, specs: Sequence[RunSpec], manifests: Sequence[Cid | None]) -> dict[str, Any]:
        """Where such runs would go and how long they would take; a manifest is a file's CID, None: as in the newest run
        of the same. `UsageError`: a run would not be accepted."""

    async def record(self, cid: Cid) -> Record: ...

    async def past(self, view: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Of finished runs: "projects"; "trends" of a "project", its newest "limit" runs; "seen": results of a "test"
        of a "project" in as many; "host": what a "host" did of as many."""

    async def node_history(self, node: str, hours: int) -> dict[str, Any]:
        """How busy a node was in the last hours, and in which state, by what this node heard. `UsageError`: it knows no
        such node."""

    async def node_runs(self, node: str, limit: int) -> dict[str, Any]:
        """What a node did of the newest finished runs, at most so many. `UsageError` as above."""

    async def rebuild(self, reports: Sequence[Cid] | None) -> dict[str, Any]:
        """Fill this node's history from reports: these, or those of all runs that the log knows. `UsageError`: it keeps
        none."""

    async def alerts(self) -> dict[str, Any]:
        """What the mesh noticed, and this node for itself; without a coordinator as far as this node knows."""

    async def acknowledge(self, alert: str, by: str) -> dict[str, Any]:
        """Somebody knows of it. `UsageError`: there is no such alert."""

    async def pins(self) -> dict[str, Any]:
        """What the mesh keeps, and what this node does; without a coordinator as far as this node knows."""

    async def pin(self, root: Cid, replicas: int) -> dict[str, Any]:
        """Bring it here and keep it for the user; on that many nodes, with the copies that takes made by and by."""

    async def unpin(self, root: Cid) -> dict[str, Any]:
        """Let go of what a user, or else a run that is over, had kept. `UsageError`: it is not pinned."""

    async def command(self, node: str, verb: CommandVerb) -> None:
        """`node` is a peer ID, an unambiguous beginning or end of one, or a name."""
