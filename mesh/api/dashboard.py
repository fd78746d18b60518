"""The dashboard's files: one page, and what it loads, under an address that holds a hash of all of it.

An address never changes its content, so browsers keep it for good; another version of the program has other addresses.
Whatever is compressible is sent compressed, once made. The page runs only the scripts that it names itself: their
nonce is new in each answer, so that nothing that gets into the page, or lies elsewhere on this node, can be run by it.
"""

import gzip
import hashlib
import secrets
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from mesh.api.checks import parse_cid, view_path
from protocols.errors import UsageError

TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
"""What is served, by the ends of names."""

PAGE = "index.html"

FOR_EVER = "public, max-age=31536000, immutable"

HEADERS = {"referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}


@dataclass(frozen=True, slots=True)
class _File:
    kind: str
    plain: bytes
    small: bytes


class Dashboard:
    """The handlers of the page, its files and its links. Files are read when a browser first asks for one."""

    def __init__(self, token: str) -> None:
        self._token = token

    @cached_property
    def _files(self) -> dict[str, _File]:
        """By name, such as "vendor/ui.js"."""
        folder = files("mesh.api").joinpath("static")
        return {name: _read(name, file) for name, file in [*_listed(folder), *_listed(folder / "vendor", "vendor/")]}

    @cached_property
    def _build(self) -> str:
        whole = hashlib.sha256()
        for name, file in sorted(self._files.items()):
            whole.update(f"{name} {len(file.plain)}\n".encode() + file.plain)
        return whole.hexdigest()[:16]

    @cached_property
    def _page(self) -> str:
        page = files("mesh.api").joinpath("static", PAGE).read_text(encoding="utf-8")
        modules = [name for name in self._files if name.endswith(".js") and "vendor/" not in name]
        early = [f'<link rel="modulepreload" nonce="NONCE" href="static/BUILD/{name}">' for name in modules]
        return page.replace("MODULES", "\n".join(early)).replace("BUILD", self._build)

    async def page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )
        headers = {**HEADERS, "content-security-policy": policy, "cache-control": "no-cache"}
        return HTMLResponse(self._page.replace("NONCE", nonce), headers=headers)

    async def file(self, request: Request) -> Response:
        file = self._files.get(request.path_params["name"])
        if file is None or request.path_params["build"] != self._build:
            raise UsageError(f"the dashboard of this version has no {request.url.path}")
        headers = {**HEADERS, "cache-control": FOR_EVER, "vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(file.plain, headers=headers, media_type=file.kind)
        return Response(file.small, headers={**headers, "content-encoding": "gzip"}, media_type=file.kind)

    async def link(self, request: Request) -> Response:
        """Where a browser, which sends no token, may read what is under the CID: what `mesh link` prints."""
        cid = parse_cid(request.path_params["cid"])
        return JSONResponse({"cid": cid, "path": view_path(self._token, cid)}, headers={"cache-control": "no-store"})


def _listed(folder: Traversable, prefix: str = "") -> list[tuple[str, Traversable]]:
    found = [(prefix + file.name, file) for file in folder.iterdir() if file.name.rpartition(".")[2] in TYPES]
    return sorted(found, key=lambda pair: pair[0])


def _read(name: str, file: Traversable) -> _File:
    plain = file.read_bytes()
    return _File(TYPES[name.rpartition(".")[2]], plain, gzip.compress(plain, mtime=0))
