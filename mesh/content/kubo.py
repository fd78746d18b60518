"""A Kubo daemon's repository in the place of our own: `--ipfs MULTIADDR`.

Blocks, pins and sizes are the daemon's; the DAG logic and Bitswap stay ours, so a mesh may mix embedded nodes and
nodes with a Kubo: such a node serves its mesh peers from the daemon and stores there what it fetches. A block that no
mesh peer gives is looked for by the daemon among its own peers as well. The daemon collects garbage only when it is
told to, or under `--enable-gc`: what must stay is pinned.

Calls go through ipfshttpclient in worker threads, which can't be cancelled but are bounded in time. Two go through
httpx instead: many blocks in one request (ipfshttpclient puts one a request, and takes several answers for an error),
and the search among the daemon's peers (which may last, and has to end when the block comes from elsewhere).
"""

import queue
import warnings
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import ipfshttpclient
import trio
from ipfshttpclient.exceptions import AddressError, CommunicationError, EncoderError, ErrorResponse

from mesh.content.bitswap.exchange import Bitswap, open_bitswap
from mesh.content.bitswap.wants import Sources
from mesh.content.fetching import Exchange, Fetch
from mesh.content.pins import PinBook
from mesh.content.repository import FileRow
from mesh.content.store import EmbeddedContent
from mesh.content.unixfs.cid import CODECS, check_cid, multihash_of, parse_cid
from mesh.content.unixfs.nodes import Block
from mesh.measures import Traffic
from mesh.ports import ContentStat, KeptRoot, PinKey, PinOwner
from mesh.together import together
from protocols.errors import ContentNotFound, MeshError, NodeUnavailable, StorageError, UsageError
from protocols.ids import NO_RUN, Cid, RunId

warnings.filterwarnings("ignore", message="The 'strict' parameter", category=FutureWarning)
"""Of urllib3 2, about what ipfshttpclient passes to it."""

T = TypeVar("T")

CALL_SECONDS_MAX = 30.0
PIN_SECONDS_MAX = 120.0
"""The daemon walks the DAG before it pins it."""

CALLS_MAX = 8
"""Requests to the daemon at once."""

PUT_BYTES_MAX = 8 * 1024 * 1024
PUT_BLOCKS_MAX = 256
"""Blocks in one request."""

KNOWN_MAX = 100_000
"""Blocks remembered to be in the daemon's repository, so that it need not be asked again."""

SEARCH_AFTER_SECONDS = 1.0
"""What mesh peers get before the daemon looks among its own."""

SEARCH_SECONDS_MAX = 30.0
SEARCHES_MAX = 8

CODEC_NAMES = {number: name for name, number in CODECS.items()}


class KuboRepository:
    """The `Repository` that a daemon keeps. Damage is the daemon's to find, but each block is checked here all the
    same."""

    losses = 0

    def __init__(self, address: str, http: httpx.AsyncClient, book: PinBook) -> None:
        self._address = address
        self._book = book
        self._http = http
        self._calls = trio.CapacityLimiter(CALLS_MAX)
        self._clients: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(CALLS_MAX):
            self._clients.put(_client(address))
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._searches = trio.CapacityLimiter(SEARCHES_MAX)

    async def version(self) -> str:
        """The daemon's version; `NodeUnavailable` if it is not there."""
        return str((await self._call(lambda client: client.version()))["Version"])

    def close(self) -> None:
        while not self._clients.empty():
            self._clients.get().close()
        self._book.close()

    # Blocks

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        return await self._each(self._get, cids)

    async def get_some(self, cids: Sequence[Cid], bytes_max: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        while len(found) < len(cids) and sum(len(data or b"") for data in found) < bytes_max:
            found += await self.get_many(cids[len(found) : len(found) + CALLS_MAX])
        return found

    async def has_many(self, cids: Sequence[Cid]) -> list[bool]:
        return await self._each(self._has, cids)

    async def put_many(self, blocks: Sequence[Block]) -> None:
        by_codec: dict[int, list[bytes]] = {}
        for block in blocks:
            codec, key = parse_cid(block.cid)
            if key not in self._known:
                by_codec.setdefault(codec, []).append(block.data)
        for codec, data in by_codec.items():
            while data:
                count = size = 0
                while count < min(len(data), PUT_BLOCKS_MAX) and (count == 0 or size < PUT_BYTES_MAX):
                    size += len(data[count])
                    count += 1
                await self._put(codec, data[:count])
                del data[:count]

    async def _put(self, codec: int, blocks: list[bytes]) -> None:
        parameters = {"cid-codec": CODEC_NAMES[codec], "mhtype": "sha2-256", "mhlen": "32"}
        files = [("file", (str(number), data)) for number, data in enumerate(blocks)]
        with self._daemon_errors():
            answer = await self._http.post("block/put", params=parameters, files=files)
        if answer.status_code != httpx.codes.OK:
            raise StorageError(f"the Kubo daemon at {self._address} refuses blocks: {answer.text[:300]}")
        if len(answer.text.splitlines()) != len(blocks):
            raise StorageError(f"the Kubo daemon at {self._address} did not store all blocks: {answer.text[-300:]}")
        for data in blocks:
            self._remember(multihash_of(data))

    async def _get(self, cid: Cid) -> bytes | None:
        key = parse_cid(cid)[1]
        data = await self._call_local(lambda client: client.block.get(cid, offline=True))
        if data is None or multihash_of(data) != key:
            self._known.pop(key, None)
            return None
        self._remember(key)
        return bytes(data)

    async def _has(self, cid: Cid) -> bool:
        key = parse_cid(cid)[1]
        if key not in self._known:
            if await self._call_local(lambda client: client.block.stat(cid, offline=True)) is None:
                return False
            self._remember(key)
        return True

    async def search(self, cid: Cid) -> bytes | None:
        """The block from the daemon's own peers, if one of them has it."""
        async with self._searches:
            with self._daemon_errors():
                parameters = {"arg": cid, "timeout": f"{SEARCH_SECONDS_MAX:.0f}s"}
                answer = await self._http.post("block/get", params=parameters, timeout=SEARCH_SECONDS_MAX + 5)
        found = answer.status_code == httpx.codes.OK and multihash_of(answer.content) == parse_cid(cid)[1]
        return answer.content if found else None

    # Roots and pins

    async def use(self, root: Cid, whole: bool) -> None:
        """Nothing to note: the daemon has its own rules of what it keeps."""

    async def has_whole(self, root: Cid) -> bool:
        if await self._call_local(partial(_pinned, root=root)) is not None:
            return True
        try:
            await Fetch(self, None, (), CALL_SECONDS_MAX).run(root)
        except ContentNotFound:
            return False
        return True

    async def pin(self, roots: Sequence[Cid], owner: PinOwner, reason: str, run: RunId = NO_RUN) -> None:
        """The daemon pins, and knows no owner: our book does. What somebody else had it pin before is its user's."""
        options = {"name": reason[:255]}

        async def pin_one(root: Cid) -> None:
            ours = await trio.to_thread.run_sync(self._book.has, root)
            if not ours and await self._call_local(partial(_pinned, root=root)) is not None:
                await trio.to_thread.run_sync(self._book.put, [root], PinOwner.USER, "pinned in Kubo", NO_RUN)
            add = partial(_pin, root=root, options=options)
            try:
                await self._call(add)
            except StorageError as error:
                raise ContentNotFound(
                    f"the Kubo daemon at {self._address} can't pin {root}: {error.__cause__}"
                ) from None

        await self._each(pin_one, roots)
        await trio.to_thread.run_sync(self._book.put, roots, owner, reason, run)

    async def unpin(self, kept: Sequence[PinKey]) -> None:
        gone = await trio.to_thread.run_sync(self._book.remove, kept)
        for root in gone:
            await self._call_local(partial(_unpin, root=root))

    async def kept(self) -> list[KeptRoot]:
        """What others have the daemon pin is its user's."""
        ours = await trio.to_thread.run_sync(self._book.rows)
        named = await self._pinned()
        known = {one.root for one in ours}
        theirs = [KeptRoot(root, PinOwner.USER, name, NO_RUN, 0.0) for root, name in named.items() if root not in known]
        return sorted([*(one for one in ours if one.root in named), *theirs], key=lambda one: one.key)

    async def _pinned(self) -> dict[Cid, str]:
        answer = await self._call(lambda client: client.pin.ls(type="recursive", opts={"names": True}))
        found = {}
        for text, entry in sorted(answer["Keys"].items()):
            try:
                found[check_cid(text)] = str(entry.get("Name", ""))
            except UsageError:
                continue  # a pin of somebody else's, under a hash or codec that no content of ours has
        return found

    async def stat(self) -> ContentStat:
        answer = await self._call(lambda client: client.repo.stat())
        return ContentStat(int(answer["NumObjects"]), int(answer["RepoSize"]), len(await self._pinned()))

    async def remembered_files(self, prefix: str) -> Mapping[str, FileRow]:
        """None: the daemon may have collected what was added, and does not say so."""
        return {}

    async def remember_files(self, files: Mapping[str, FileRow]) -> None:
        """See `remembered_files`."""

    # Calls

    async def _each(self, call: Callable[[Cid], Any], cids: Sequence[Cid]) -> list[Any]:
        """The results of all calls, `CALLS_MAX` at once; the first failure ends the others."""
        results: list[Any] = [None] * len(cids)

        async def worker(numbers: Iterator[int]) -> None:
            for number in numbers:
                results[number] = await call(cids[number])

        await together(worker, [iter(range(len(cids)))] * min(CALLS_MAX, len(cids)))
        return results

    async def _call_local(self, call: Callable[[Any], T]) -> T | None:
        """None where the daemon answers that it has no such thing."""
        try:
            return await self._call(call)
        except StorageError:
            return None

    async def _call(self, call: Callable[[Any], T]) -> T:
        """`StorageError` if the daemon refuses, `NodeUnavailable` if it does not answer, or makes no sense."""

        def with_client() -> T:
            client = self._clients.get()
            try:
                return call(client)
            finally:
                self._clients.put(client)

        try:
            return await trio.to_thread.run_sync(with_client, limiter=self._calls)
        except ErrorResponse as error:
            raise StorageError(f"the Kubo daemon at {self._address} refuses: {error}") from error
        except (CommunicationError, EncoderError, OSError) as error:  # the last is requests', for a torn answer
            raise NodeUnavailable(f"the Kubo daemon at {self._address} does not answer: {error}") from None

    def _remember(self, key: bytes) -> None:
        self._known[key] = None
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _daemon_errors(self) -> "_DaemonErrors":
        return _DaemonErrors(self._address)


class _DaemonErrors:
    """Turns httpx's failures into ours."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, httpx.HTTPError):
            raise NodeUnavailable(f"the Kubo daemon at {self._address} does not answer: {error!r}") from None


class KuboExchange:
    """Bitswap with the mesh, and after a moment the daemon's own network as well; the first to have a block gives
    it."""

    def __init__(self, bitswap: Bitswap | None, repository: KuboRepository) -> None:
        self._bitswap = bitswap
        self._repository = repository

    async def get(self, cid: Cid, sources: Sources) -> bytes:
        found: list[bytes] = []
        failures: list[MeshError] = []

        async def from_mesh(exchange: Exchange) -> None:
            try:
                found.append(await exchange.get(cid, sources))
            except MeshError as error:
                failures.append(error)
            nursery.cancel_scope.cancel()

        async def from_daemon() -> None:
            try:
                while not found:
                    await trio.sleep(SEARCH_AFTER_SECONDS)
                    data = await self._repository.search(cid)
                    if data is not None:
                        found.append(data)
            except MeshError as error:
                failures.append(error)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            if self._bitswap is not None:
                nursery.start_soon(from_mesh, self._bitswap)
            nursery.start_soon(from_daemon)
        if not found:
            raise failures[0]
        return found[0]

    def stored(self, cids: Sequence[Cid]) -> None:
        if self._bitswap is not None:
            self._bitswap.stored(cids)

    def is_ours(self, cid: Cid, sources: Sources) -> bool:
        return self._bitswap is None or self._bitswap.is_ours(cid, sources)

    def blame(self, cid: Cid, reason: str) -> None:
        if self._bitswap is not None:
            self._bitswap.blame(cid, reason)


def _pin(client: Any, root: Cid, options: dict[str, str]) -> None:
    client.pin.add(root, opts=options, offline=True, timeout=PIN_SECONDS_MAX)


def _pinned(client: Any, root: Cid) -> Any:
    return client.pin.ls(root, type="recursive")


def _unpin(client: Any, root: Cid) -> None:
    client.pin.rm(root)


def _client(address: str) -> Any:
    """A client with a connection of its own. `Client`, because `connect` refuses every daemon since 0.8 by version."""
    try:
        return ipfshttpclient.Client(address, session=True, timeout=CALL_SECONDS_MAX)
    except (AddressError, ValueError) as error:
        raise UsageError(f"--ipfs {address} is no address of a Kubo daemon's RPC: {error}") from None


def _url(address: str) -> str:
    """Of the RPC, from a multiaddr that ipfshttpclient has understood: /KIND/HOST/tcp/PORT[/http|/https]."""
    _, kind, host, _, port, *scheme = address.rstrip("/").split("/")
    bracketed = f"[{host}]" if kind == "ip6" else host
    return f"{scheme[0] if scheme else 'http'}://{bracketed}:{port}/api/v0/"


@asynccontextmanager
async def open_kubo_content(
    address: str, host: Any | None = None, book: Path | None = None, traffic: Traffic | None = None
) -> AsyncIterator[EmbeddedContent]:
    """Content kept by the Kubo daemon at `address` (a multiaddr), exchanged over a libp2p `host` with mesh peers. The
    `book` is a file that says for whom it is pinned; without one, nobody remembers that.

    `UsageError` for a wrong address, `NodeUnavailable` if no daemon answers there.
    """
    _client(address).close()
    async with httpx.AsyncClient(base_url=_url(address), timeout=CALL_SECONDS_MAX, trust_env=False) as http:
        repository = KuboRepository(address, http, PinBook(book))
        try:
            await repository.version()
            if host is None:
                yield EmbeddedContent(repository, KuboExchange(None, repository), traffic)
            else:
                async with open_bitswap(host, repository, traffic) as bitswap:
                    yield EmbeddedContent(repository, KuboExchange(bitswap, repository), traffic)
        finally:
            repository.close()
