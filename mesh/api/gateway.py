"""Content over plain HTTP, read-only: `/ipfs/CID[/PATH]`, for curl, browsers and other IPFS tools.

As the specifications of the Path and the Trustless Gateway have it (specs.ipfs.tech/http-gateways), so far as this is
a node's own view: files in ranges, directories as a page of links, single blocks (`?format=raw`) and archives
(`?format=car`), which whoever gets them can verify. What is under a CID never changes, so it is cached for good.

What is served may come from anybody, and shares its origin with the API: it is put into a sandbox that runs no script
and asks for nothing but what lies beside it, and its type is never guessed by the browser.
"""

import html
import mimetypes
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mesh.api.checks import parse_cid
from mesh.api.streams import FileStream
from mesh.entries import ContentEntry, ContentKind, NamedContent
from mesh.ports import Content
from protocols.errors import ContentNotFound, MeshError, UsageError
from protocols.ids import Cid

LISTED_MAX = 10_000
"""Entries of a directory that are shown."""

SNIFFED_BYTES = 4096
"""Of a file whose name does not tell what it is."""

INDEX = "index.html"

RAW, CAR = "application/vnd.ipld.raw", "application/vnd.ipld.car"
CBOR = "application/vnd.ipld.dag-cbor"
BYTES = "application/octet-stream"
FORMATS = {"raw": RAW, "car": CAR}
SCOPES = ("all", "entity", "block")
CAR_TYPE = f"{CAR}; version=1; order=dfs; dups=n"

POLICY = (
    "sandbox allow-downloads; default-src 'none'; img-src 'self' data:; media-src 'self'; font-src 'self'; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FOR_EVER = "private, max-age=29030400, immutable"
SAFE_HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})\Z")
_TYPES = mimetypes.MimeTypes()  # Python's own table, not the host's
_TEXTS = (".cfg", ".ini", ".log", ".lock", ".md", ".rst", ".toml", ".yaml", ".yml")


class GatewayError(MeshError):
    """Of the answer's own status."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.exit_code = 4 if status < 500 else 12
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, understood."""

    request: Request
    root: Cid
    path: str
    format: str
    """"raw", "car", or empty: as a file or a page."""
    last: str
    """What follows the last slash of the address, as it stands there."""

    @property
    def head(self) -> bool:
        return self.request.method == "HEAD"


class Gateway:
    """The route's handler."""

    def __init__(self, content: Content) -> None:
        self._content = content

    async def answer(self, request: Request) -> Response:
        asked = _asked(request)
        try:
            entry = await self._content.look(asked.root, asked.path)
        except UsageError as error:
            raise GatewayError(404, str(error)) from None
        except ContentNotFound as error:
            raise GatewayError(504, str(error)) from None
        headers = {
            **SAFE_HEADERS,
            "x-ipfs-path": quote(f"/ipfs/{asked.root}/{asked.path}".rstrip("/"), errors="surrogateescape"),
            "x-ipfs-roots": ",".join(entry.way),
            "cache-control": FOR_EVER,
            "vary": "Accept",
        }
        try:
            if asked.format == "car":
                return await self._archive(asked, entry, headers)
            if asked.format == "raw":
                return await self._block(asked, entry, RAW, headers)
            if entry.kind is ContentKind.BLOCK:
                return await self._block(asked, entry, CBOR, headers)
            if entry.kind is ContentKind.DIRECTORY:
                return await self._directory(asked, entry, headers)
            return await self._file(asked, entry, asked.path.rpartition("/")[2], headers)
        except ContentNotFound as error:
            raise GatewayError(504, str(error)) from None

    async def _archive(self, asked: _Asked, entry: ContentEntry, headers: dict[str, str]) -> Response:
        scope = asked.request.query_params.get("dag-scope", "all")
        if scope not in SCOPES:
            raise GatewayError(400, f"'dag-scope' must be one of {', '.join(SCOPES)}, not {scope[:40]!r}")
        deep = scope == "all" or (scope == "entity" and entry.kind is ContentKind.FILE)
        headers["etag"] = f'W/"{entry.cid}.car.{"all" if deep else "block"}.{len(entry.way)}"'
        headers["content-disposition"] = f'attachment; filename="{entry.cid}.car"'
        if (same := _unchanged(asked, headers)) is not None:
            return same
        if asked.head:
            return _only_head(headers, CAR_TYPE)
        pieces = aiter(self._content.archive(entry, deep))
        return FileStream(await anext(pieces, b""), pieces, headers, CAR_TYPE)

    async def _block(self, asked: _Asked, entry: ContentEntry, kind: str, headers: dict[str, str]) -> Response:
        headers["etag"] = f'"{entry.cid}.raw"'
        headers["content-disposition"] = f'attachment; filename="{entry.cid}.bin"'
        if (same := _unchanged(asked, headers)) is not None:
            return same
        data = await self._content.get(entry.cid)
        return Response(data, 200, headers, kind)

    async def _directory(self, asked: _Asked, entry: ContentEntry, headers: dict[str, str]) -> Response:
        if asked.last:
            # Relative to where this is, whatever stands before it.
            return RedirectResponse(f"./{asked.last}/", 302, SAFE_HEADERS)
        with suppress(UsageError):
            page = await self._content.look(entry.cid, INDEX)
            if page.kind is ContentKind.FILE:
                return await self._file(asked, page, INDEX, headers)
        headers["etag"] = f'"DirIndex-1.{entry.cid}"'
        headers["cache-control"] = "private, no-cache"  # how it is shown may change
        if (same := _unchanged(asked, headers)) is not None:
            return same
        entries = await self._content.entries(entry.cid, LISTED_MAX)
        return Response(_page(asked, entries), 200, headers, "text/html")

    async def _file(self, asked: _Asked, entry: ContentEntry, name: str, headers: dict[str, str]) -> Response:
        headers["etag"] = f'"{entry.cid}"'
        if (same := _unchanged(asked, headers)) is not None:
            return same
        if entry.kind is ContentKind.LINK:
            return Response(entry.target.encode("utf-8", "surrogateescape"), 200, headers, "inode/symlink")
        headers["accept-ranges"] = "bytes"
        start, stop, status = _wanted_range(asked, entry, headers)
        headers["content-length"] = str(stop - start)
        if status == 206:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{entry.size}"
        kind = _type_of(name)
        if kind is None:
            head = self._content.read(entry.cid, "", 0, SNIFFED_BYTES)
            kind = "text/plain; charset=utf-8" if _is_text(b"".join([piece async for piece in head])) else BYTES
        if asked.head:
            return _only_head(headers, kind)
        pieces = aiter(self._content.read(entry.cid, "", start, stop))
        return FileStream(await anext(pieces, b""), pieces, headers, kind, status)


def _asked(request: Request) -> _Asked:
    raw = request.scope["raw_path"].decode("latin-1")
    # A name need not be UTF-8: it is taken as it is, as a file system gives it.
    _, _, rest = unquote(raw, errors="surrogateescape").partition("/ipfs/")
    cid, _, path = rest.partition("/")
    kind = request.query_params.get("format", "")
    if kind and kind not in FORMATS:
        raise GatewayError(400, f"'format' must be one of {', '.join(FORMATS)}, not {kind[:40]!r}")
    if not kind:
        accepted = [one.partition(";")[0].strip() for one in request.headers.get("accept", "").split(",")]
        kind = next((name for name, media in FORMATS.items() if media in accepted), "")
    return _Asked(request, parse_cid(cid), path.strip("/"), kind, raw.rpartition("/")[2])


def _unchanged(asked: _Asked, headers: dict[str, str]) -> Response | None:
    """304, if the client says that it has what is asked for."""
    given = [one.strip().removeprefix("W/") for one in asked.request.headers.get("if-none-match", "").split(",")]
    if headers["etag"].removeprefix("W/") in given or given == ["*"]:
        return Response(None, 304, headers)
    return None


def _wanted_range(asked: _Asked, entry: ContentEntry, headers: dict[str, str]) -> tuple[int, int, int]:
    """(start, stop, status). Several ranges, or a malformed one, count as none."""
    whole = 0, entry.size, 200
    found = _RANGE.match(asked.request.headers.get("range", "").replace(" ", ""))
    if not found or asked.request.headers.get("if-range", headers["etag"]) != headers["etag"]:
        return whole
    first, last = found.groups()
    if not first and not last:
        return whole
    start = int(first) if first else max(0, entry.size - int(last))
    stop = min(entry.size, int(last) + 1) if first and last else entry.size
    if first and last and int(last) < int(first):
        return whole
    if start >= stop:
        raise GatewayError(
            416,
            f"the file has {entry.size} bytes, none of them in the range",
            {"content-range": f"bytes */{entry.size}"},
        )
    return start, stop, 206


def _type_of(name: str) -> str | None:
    """By its name; None where that tells nothing."""
    if name.lower().endswith(_TEXTS):
        return "text/plain; charset=utf-8"
    kind, encoding = _TYPES.guess_type(name)
    if encoding is not None:
        return BYTES
    return f"{kind}; charset=utf-8" if kind is not None and kind.startswith("text/") else kind


def _is_text(first: bytes) -> bool:
    """Whether a file that begins so is UTF-8, as far as that shows: its last character may be cut off."""
    try:
        first.decode()
    except UnicodeDecodeError as error:
        return len(first) == SNIFFED_BYTES and error.start > len(first) - 4
    return bool(first) and b"\0" not in first


def _only_head(headers: dict[str, str], kind: str) -> Response:
    response = Response(None, 200, headers, kind)
    if "content-length" not in headers:
        del response.headers["content-length"]
    return response


def _page(asked: _Asked, entries: Sequence[NamedContent]) -> bytes:
    """A directory as a page of links, relative ones, so that it works wherever it is."""
    title = html.escape(_readable(f"/ipfs/{asked.root}/{asked.path}"))
    rows = ['<tr><td><a href="../">..</a></td></tr>'] if asked.path else []
    for entry in entries[:LISTED_MAX]:
        link = "./" + quote(entry.name, safe="", errors="surrogateescape")
        rows.append(
            f'<tr><td><a href="{link}">{html.escape(_readable(entry.name))}</a></td>'
            f"<td>{entry.tsize:,}</td><td><code>{entry.cid}</code></td></tr>"
        )
    if len(entries) > LISTED_MAX:
        rows.append(f"<tr><td>and others: over {LISTED_MAX:,} in all</td></tr>")
    body = "\n".join(rows)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }}
:root {{ color-scheme: light dark }}
h1 {{ font-size: 1.1em; overflow-wrap: anywhere }} td {{ padding: .1em 1.5em .1em 0 }}
td:nth-child(2) {{ text-align: right; font-variant-numeric: tabular-nums }} code {{ font-size: .8em; opacity: .6 }}
</style>
<h1>{title}</h1>
<table>
{body}
</table>
</html>
""".encode()


def _readable(name: str) -> str:
    """What can be shown of a name that need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
