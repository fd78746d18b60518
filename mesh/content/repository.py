"""What holds the blocks under the `Content` port: our own store (local.py), or a Kubo daemon's (kubo.py).

The DAG logic (adding, checking out, walking, fetching) is written once, above this.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from mesh.content.unixfs.nodes import Block
from mesh.ports import ContentStat, KeptRoot, PinKey, PinOwner
from protocols.ids import NO_RUN, Cid, RunId

FileRow = tuple[str, Cid, int, int]
"""Of a file that was added: what its unchanged state looks like (`stamp`), its CID, tsize and size."""


class Repository(Protocol):
    """Blocks on this host. Asynchronous; what is put is durable when the call returns."""

    @property
    def losses(self) -> int:
        """Changes when blocks may have been removed: while it stands, what was here still is."""

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Each block, its hash checked, or None where it is not here."""

    async def get_some(self, cids: Sequence[Cid], bytes_max: int) -> list[bytes | None]:
        """The same for as many of the first `cids`, at least one, as bring the total to `bytes_max`."""

    async def has_many(self, cids: Sequence[Cid]) -> list[bool]: ...

    async def put_many(self, blocks: Sequence[Block]) -> None:
        """Store blocks, in one sync."""

    async def use(self, root: Cid, whole: bool) -> None:
        """Note that a root is in use now, and whether its whole DAG is known to be here."""

    async def has_whole(self, root: Cid) -> bool: ...

    async def pin(self, roots: Sequence[Cid], owner: PinOwner, reason: str, run: RunId = NO_RUN) -> None:
        """Keep what is here, in one sync. An owner who keeps a root already says anew why."""

    async def unpin(self, kept: Sequence[PinKey]) -> None: ...

    async def kept(self) -> list[KeptRoot]:
        """By key."""

    async def stat(self) -> ContentStat: ...

    async def remembered_files(self, prefix: str) -> Mapping[str, FileRow]:
        """Files under the path `prefix` that were added and not lost since."""

    async def remember_files(self, files: Mapping[str, FileRow]) -> None: ...
