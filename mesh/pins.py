"""A node's own side of pins: what its user pins, unpins and lists, and what it keeps for the mesh.

A user's pin is this node's first, and then the mesh's, where more replicas than this one are wanted; so it holds at
once, and without a coordinator. What the mesh has a node keep, it lets go of only when the coordinator says, by all
that is committed, that it is named no more: a node that is cut off keeps everything.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from mesh.ports import Content, KeptRoot, Network, Nodes, PinKey, PinOwner, ReplicatedLog
from mesh.state.model import CoordinatorState
from mesh.views.pins import pin_document
from protocols.client import PinContent, UnpinContent
from protocols.codec import decode, encode
from protocols.errors import MeshError, NoQuorum, RemoteCallError
from protocols.ids import NO_RUN, Cid, PeerId
from protocols.presence import NodeState
from protocols.work import PROTOCOL, ROOTS_PER_MESSAGE_MAX, Ack, AskDue, AskNamed, Due, Lost, Named, Refused

log = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0
"""Between two times that a node asks what it is to keep, and says what it has lost."""

SWEEP_RETRY_SECONDS = 15.0
"""After one that failed."""

LET_GO_AFTER_SECONDS = 900.0
"""How long a node keeps what nothing names: it may be named in a moment."""

Ask = Callable[[object], Awaitable[dict[str, Any]]]
"""Asks the coordinator something that it answers with a document."""


class NodePins:
    """What the user of one node does with pins."""

    def __init__(
        self,
        *,
        content: Content,
        nodes: Nodes,
        replica: Callable[[], ReplicatedLog | None],
        ask: Ask,
        page: Callable[[str], Awaitable[dict[str, Any]]],
        dated: Callable[[bool], dict[str, Any]],
    ) -> None:
        """`dated`: as in `Feeds`."""
        self._content = content
        self._nodes = nodes
        self._replica = replica
        self._ask = ask
        self._page = page
        self._dated = dated

    async def pin(self, root: Cid, replicas: int) -> dict[str, Any]:
        """Bring it here and keep it; on more nodes than this one, if more are wanted."""
        await self._content.fetch(root)
        await self._content.pin(root, "user")
        if replicas <= 1:
            return {"cid": root}
        await self._content.hold([root], "user")
        try:
            return await self._ask(PinContent(root, replicas, await self._content.size(root)))
        except RemoteCallError as error:
            raise RemoteCallError(f"pinned on this node alone: {error}", error.exit_code) from None

    async def unpin(self, root: Cid) -> dict[str, Any]:
        mine = any(one.root == root and one.owner is PinOwner.USER for one in await self._content.kept())
        if mine:
            await self._content.unpin(root)
        try:
            return await self._ask(UnpinContent(root))
        except (RemoteCallError, NoQuorum):
            if not mine:
                raise
            return {"cid": root, "ended": ["user"], "left": []}  # of this node alone, as far as anybody can say

    async def listing(self) -> dict[str, Any]:
        """The mesh's pins, each with whether it is kept here, and those of this node alone."""
        pins, agreed = await self._agreed_or_own()
        kept = await self._content.kept()
        here = {one.root for one in kept}
        known = {pin["cid"] for pin in pins}
        alone = {one.root: one.reason for one in kept if one.root not in known and one.owner is PinOwner.USER}
        every = [{**pin, "here": pin["cid"] in here} for pin in pins]
        every += [{"cid": root, "reason": reason, "here": True} for root, reason in alone.items()]
        return {"pins": sorted(every, key=lambda pin: str(pin["cid"])), **self._dated(agreed)}

    async def _agreed_or_own(self) -> tuple[list[dict[str, Any]], bool]:
        """By the coordinator; without one, by this node's copy of the log, if it has one (and False)."""
        pins: list[dict[str, Any]] = []
        try:
            while True:
                page = await self._page(pins[-1]["cid"] if pins else "")
                pins += page["pins"]
                if not page["more"]:
                    return pins, True
        except (NoQuorum, RemoteCallError) as error:
            log.info("the pins are told as this node knows them: %s", error)
        replica = self._replica()
        if replica is None:
            return [], False
        state: CoordinatorState = replica.state
        names = names_and_states(self._nodes)
        return [pin_document(state.pins[root], names) for root in sorted(state.pins)], False


def names_and_states(nodes: Nodes) -> dict[PeerId, tuple[str, NodeState]]:
    return {peer: (view.presence.name, view.state) for peer, view in nodes.nodes().items()}


class Keeping:
    """What a node keeps for the mesh. It asks when it has found a coordinator, and then now and then."""

    def __init__(self, *, network: Network, content: Content, coordinator: Callable[[], PeerId | None]) -> None:
        self._network = network
        self._content = content
        self._coordinator = coordinator
        self._unnamed: dict[PinKey, float] = {}
        """Since when, on trio's clock, each answer was that nothing names it."""

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except MeshError as error:
                log.debug("what is to be kept here is asked later: %s", error)
                await trio.sleep(SWEEP_RETRY_SECONDS)
            else:
                await trio.sleep(LET_GO_AFTER_SECONDS if self._unnamed else SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Let go of what nothing names any more, take what is to be kept and was not, and say what is lost."""
        coordinator = self._coordinator()
        if coordinator is None:
            raise NoQuorum("this node knows of no coordinator")
        held = [one for one in await self._content.kept() if one.owner is PinOwner.MESH]
        await self._let_go(coordinator, held)
        await self._check(coordinator, {one.root for one in held if one.run == NO_RUN})

    async def _let_go(self, coordinator: PeerId, held: Sequence[KeptRoot]) -> None:
        open_runs: set[int] = set()
        named: set[Cid] = set()
        runs = sorted({one.run for one in held if one.run})
        roots = sorted(one.root for one in held if not one.run)
        for start in range(0, max(len(runs), len(roots), 1), ROOTS_PER_MESSAGE_MAX):
            some = AskNamed(
                tuple(roots[start : start + ROOTS_PER_MESSAGE_MAX]), tuple(runs[start : start + ROOTS_PER_MESSAGE_MAX])
            )
            answer = await self._ask(coordinator, some, Named)
            named.update(root for root, is_named in zip(some.roots, answer.roots, strict=False) if is_named)
            open_runs.update(run for run, is_open in zip(some.runs, answer.runs, strict=False) if is_open)
        now = trio.current_time()
        unnamed = [one.key for one in held if not (one.run in open_runs if one.run else one.root in named)]
        since = {key: self._unnamed.get(key, now) for key in unnamed}
        gone = [key for key, at in since.items() if now - at >= LET_GO_AFTER_SECONDS]
        self._unnamed = {key: at for key, at in since.items() if now - at < LET_GO_AFTER_SECONDS}
        if gone:
            await self._content.release(gone)
            log.info("%d roots are kept no longer: nothing names them", len(gone))

    async def _check(self, coordinator: PeerId, held: set[Cid]) -> None:
        after, more = Cid(""), True
        lost: list[Cid] = []
        while more:
            due = await self._ask(coordinator, AskDue(after), Due)
            for root in due.roots:
                if not await self._content.has(root):
                    lost.append(root)
                elif root not in held:
                    await self._content.hold([root], "pinned")
            more = due.more
            after = due.roots[-1] if due.roots else after
        for start in range(0, len(lost), ROOTS_PER_MESSAGE_MAX):
            await self._ask(coordinator, Lost(tuple(lost[start : start + ROOTS_PER_MESSAGE_MAX])), Ack)
        if lost:
            log.warning("%d roots that this node was to keep are lost here, %s among them", len(lost), lost[0])

    async def _ask(self, coordinator: PeerId, request: object, answer: type[Any]) -> Any:
        reply = decode(await self._network.call(coordinator, PROTOCOL, encode(request)), Refused, answer)
        if isinstance(reply, Refused):
            raise RemoteCallError(reply.reason)
        return reply
