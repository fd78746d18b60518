"""Decoded manifests, for all of a node that reads them: one of 100,000 tests takes 20 MB and half a second."""

from collections import OrderedDict

import trio

from mesh.ports import Content
from protocols.ids import Cid, PeerId
from protocols.long import LongDecoding
from protocols.manifests import Manifest

MANIFESTS_MAX = 16
TESTS_MAX = 500_000
"""Of those in memory together; the one that was used last stays whatever its size."""


class Manifests:
    def __init__(self, content: Content) -> None:
        self._content = content
        self._known: OrderedDict[Cid, Manifest] = OrderedDict()
        self._tests = 0
        self._turn = trio.Lock()
        """One is decoded at a time."""

    async def get(
        self, cid: Cid, holders: tuple[PeerId, ...] = (), timeout: float = 60.0, keep: bool = True
    ) -> Manifest:
        """The manifest, from memory, this node's store, or a node that has it; `ContentNotFound` after a stall of
        `timeout` seconds, `RemoteProtocolError` for what is none. `keep`: whether somebody will soon ask for it again.
        """
        manifest = self._known.get(cid)
        if manifest is None:
            await self._content.fetch(cid, holders, timeout)
            data = b"".join([part async for part in self._content.read(cid)])
            async with self._turn:
                manifest = self._known.get(cid) or await _decoded(data)
        if keep:
            self._keep(cid, manifest)
        return manifest

    def _keep(self, cid: Cid, manifest: Manifest) -> None:
        """As the one that was used last."""
        if cid not in self._known:
            self._tests += len(manifest.tests)
        self._known[cid] = manifest
        self._known.move_to_end(cid)
        while len(self._known) > 1 and (len(self._known) > MANIFESTS_MAX or self._tests > TESTS_MAX):
            self._tests -= len(self._known.popitem(last=False)[1].tests)


async def _decoded(data: bytes) -> Manifest:
    """With a turn for others after each step."""
    decoding = LongDecoding(data, Manifest, "tests")
    for _ in decoding:
        await trio.lowlevel.checkpoint()
    return decoding.message
