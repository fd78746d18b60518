"""Our own block store behind trio: worker threads for the disk, and one sync for all who put at the same time.

Group commit without a task: whoever gets the lock commits everything that waits; the others find theirs done.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from mesh.content.blocks import QUOTA_BYTES_DEFAULT, BlockStore, Collected, check_size
from mesh.content.repository import FileRow
from mesh.content.unixfs.nodes import Block
from mesh.ports import ContentStat, KeptRoot, PinKey, PinOwner
from protocols.errors import MeshError
from protocols.ids import NO_RUN, Cid, RunId

T = TypeVar("T")

THREADS_MAX = 4
"""Of the store, at once: reads are serialised by its lock anyway."""

COMMIT_BYTES_MAX = 16 * 1024 * 1024
"""Blocks in one group commit; one put alone may be larger."""


@dataclass(eq=False, slots=True)
class _Put:
    """One caller's blocks on their way to disk."""

    blocks: Sequence[Block]
    done: bool = False
    error: MeshError | None = None
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = sum(len(block.data) for block in self.blocks)


class LocalRepository:
    """The `Repository` of the embedded default."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._threads = trio.CapacityLimiter(THREADS_MAX)
        self._committing = trio.Lock()
        self._waiting: list[_Put] = []

    @property
    def losses(self) -> int:
        return self._store.losses

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        return await self._run(self._store.get_many, cids)

    async def get_some(self, cids: Sequence[Cid], bytes_max: int) -> list[bytes | None]:
        return await self._run(self._store.get_some, cids, bytes_max)

    async def has_many(self, cids: Sequence[Cid]) -> list[bool]:
        return await self._run(self._store.has_many, cids)

    async def put_many(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            check_size(block.data)  # here, since a commit that fails fails for all who share it
        mine = _Put(blocks)
        self._waiting.append(mine)
        try:
            async with self._committing:
                while not mine.done:
                    with trio.CancelScope(shield=True):  # what was taken is others' as well
                        await self._commit(self._take())
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error

    def _take(self) -> list[_Put]:
        taken: list[_Put] = []
        size = 0
        while self._waiting and (not taken or size + self._waiting[0].bytes <= COMMIT_BYTES_MAX):
            taken.append(self._waiting.pop(0))
            size += taken[-1].bytes
        return taken

    async def _commit(self, puts: list[_Put]) -> None:
        error = None
        try:
            await self._run(self._store.put_many, [block for put in puts for block in put.blocks])
        except MeshError as failure:
            error = failure
        for put in puts:
            put.done, put.error = True, error

    async def use(self, root: Cid, whole: bool) -> None:
        await self._run(self._store.use, root, whole)

    async def has_whole(self, root: Cid) -> bool:
        return await self._run(self._store.has_whole, root)

    async def pin(self, roots: Sequence[Cid], owner: PinOwner, reason: str, run: RunId = NO_RUN) -> None:
        await self._run(self._store.pin, roots, owner, reason, run)

    async def unpin(self, kept: Sequence[PinKey]) -> None:
        await self._run(self._store.unpin, kept)

    async def kept(self) -> list[KeptRoot]:
        return await self._run(self._store.kept)

    async def stat(self) -> ContentStat:
        return await self._run(self._store.stat)

    async def recent(self, count: int) -> list[Cid]:
        """The roots used last that are wholly here, the latest first."""
        return await self._run(self._store.recent, count)

    async def collect(self) -> Collected:
        """Remove what no pin and no recent use reaches."""
        return await self._run(self._store.collect)

    async def remembered_files(self, prefix: str) -> Mapping[str, FileRow]:
        return await self._run(self._store.remembered_files, prefix)

    async def remember_files(self, files: Mapping[str, FileRow]) -> None:
        await self._run(self._store.remember_files, files)

    async def _run(self, call: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(call, *arguments, limiter=self._threads)


@asynccontextmanager
async def open_local(directory: Path, quota_bytes: int = QUOTA_BYTES_DEFAULT) -> AsyncIterator[LocalRepository]:
    """The block store under `directory`, closed at the end."""
    store = await trio.to_thread.run_sync(BlockStore, directory, quota_bytes)
    try:
        yield LocalRepository(store)
    finally:
        store.close()
