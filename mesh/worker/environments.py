"""The environments that suites run in on this host: the node's own Python, another one, or one built by uv.

A uv environment lies in `environments/DIGEST`, where the digest is of all that it is made from: the suite's own inputs,
the interpreter, the platform, and the tree where that is installed too. It is built beside its place and renamed into
it, complete or absent, once however many runs ask for it at the same time; what a killed node left is removed at the
next start. Kept are the `ENVIRONMENTS_MAX` last used, up to `BYTES_MAX` and `AGE_SECONDS_MAX`; what is in use, or was
a moment ago (`RESTING_SECONDS`: a warm process may still live in it), is never removed.
"""

import dataclasses
import hashlib
import itertools
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mesh.scheduler.environments import is_path
from mesh.worker import interpreter
from mesh.worker.recipes import Recipe, recipe_of
from mesh.worker.uv import HostFailed, call_uv
from protocols.errors import MeshFailed, NoCapableWorker, UsageError
from protocols.ids import Cid
from protocols.manifests import RunSpec

log = logging.getLogger(__name__)

ENVIRONMENTS_MAX = 16
BYTES_MAX = 20 * 2**30
AGE_SECONDS_MAX = 14 * 86400.0
"""Since the last use."""
RESTING_SECONDS = 600.0
BUILD_SECONDS_MAX = 1800.0
BUILDS_AT_ONCE = 2
ASK_SECONDS_MAX = 20.0
"""For an interpreter to say what it is."""
DIGEST_CHARACTERS = 32

PYTEST_OLDEST = (7, 4)
"""The oldest that mesh/worker/pytest_side runs under."""

META = "mesh-environment.json"
"""In each environment: what it is. Its time of modification is that of the last use."""
_TEMPORARY = "."
"""How names begin of what is not complete, or no longer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Environment:
    """What a suite's processes are started with; equal for runs that may share them."""

    kind: str
    """ "ambient" or "uv"."""
    digest: str
    """Of what it was made from (uv), or of what was found in it (ambient)."""
    python: str
    """The interpreter's path."""
    variables: tuple[tuple[str, str], ...]
    """What it adds to a process's variables; the run's own come after these."""
    implementation: str
    version: str
    platform: str
    distributions: tuple[str, ...]
    """Lines "name version", sorted."""


class Environments:
    """`pythons` gives version -> path of the interpreters here, the node's own left out (it may start processes); `uv`
    the path of that program, if it is here."""

    def __init__(self, folder: Path, pythons: Callable[[], Mapping[str, Path]], uv: Callable[[], str | None]) -> None:
        self._folder = folder
        self._pythons = pythons
        self._uv = uv
        self._in_use: dict[str, int] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._builds = trio.CapacityLimiter(BUILDS_AT_ONCE)
        self._numbers = itertools.count()
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name.startswith(_TEMPORARY) or not _is_whole(path):
                    shutil.rmtree(path, ignore_errors=True)

    @asynccontextmanager
    async def hold(self, spec: RunSpec, root: Path) -> AsyncIterator[Environment]:
        """The environment of a run whose tree lies at `root`, built if need be, and kept until the end of the context.

        `UsageError`: the suite's own fault. `NoCapableWorker`: this host lacks the Python, pytest or uv that it takes.
        `MeshFailed`: it can't be built here now.
        """
        if spec.environment != "uv":
            yield await self._ambient(spec)
            return
        python = await self._interpreter(spec.python)
        described = await _described(python)
        recipe = await trio.to_thread.run_sync(recipe_of, root)
        digest = _digest(recipe, described, spec.bundle)
        self._in_use[digest] = self._in_use.get(digest, 0) + 1
        try:
            async with self._locks.setdefault(digest, trio.Lock()):
                home = self._folder / digest
                if not (home / META).is_file():
                    async with self._builds:
                        await self._build(digest, recipe, python, root, spec.bundle)
                os.utime(home / META)
            await self._remove_old()
            yield _built(home, needs_pytest=spec.command is None)
        finally:
            self._in_use[digest] -= 1
            if not self._in_use[digest]:
                del self._in_use[digest], self._locks[digest]

    async def forget(self, bundle: Cid) -> None:
        """The bundle's tree was written anew: what was built from its earlier files may lack some."""
        await self._remove([home for home in self._kept() if _meta(home)["bundle"] == bundle])

    async def _ambient(self, spec: RunSpec) -> Environment:
        python = await self._interpreter(spec.python)
        if python == sys.executable:
            return _own()
        described = await _described(python)
        fault = _pytest_fault(described["distributions"]) if spec.command is None else ""
        if fault:
            raise NoCapableWorker(f"its Python {described['python']} ({python}) has {fault}")
        return _environment("ambient", _digest_of(described), python, described, _variables(Path(python), None))

    async def _interpreter(self, wanted: str) -> str:
        """The path of the Python that a run asks for."""
        if not wanted or _fits(platform.python_version(), wanted):
            return sys.executable
        if is_path(wanted):
            if not os.access(wanted, os.X_OK):
                raise NoCapableWorker(f"has no interpreter {wanted}")
            return wanted
        found = await trio.to_thread.run_sync(self._pythons)
        for version, path in reversed(list(found.items())):
            if _fits(version, wanted):
                return str(path)
        raise NoCapableWorker(f"has no Python {wanted} (it has {', '.join(found) or 'no other than its own'})")

    async def _build(self, digest: str, recipe: Recipe, python: str, root: Path, bundle: Cid) -> None:
        uv = self._uv()
        if uv is None:
            raise NoCapableWorker("has no uv")
        home = self._folder / f"{_TEMPORARY}building-{os.getpid()}-{next(self._numbers)}"
        began = trio.current_time()
        log.info("building environment %s: uv %s", digest, " ".join(recipe.command))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with trio.move_on_after(BUILD_SECONDS_MAX) as limit:
                await _make(uv, recipe, python, root, home)
            if limit.cancelled_caught:
                raise MeshFailed(f"building the uv environment took longer than {BUILD_SECONDS_MAX:g} s")
            described = await _described(str(home / "bin" / "python"))
            size = await trio.to_thread.run_sync(_size, home)
            meta = {**described, "bytes": size, "bundle": bundle if recipe.of_tree else ""}
            (home / META).write_text(json.dumps(meta))
            home.rename(self._folder / digest)
            log.info("built environment %s in %.1f s, %d bytes", digest, trio.current_time() - began, size)
        except OSError as error:
            raise MeshFailed(f"the uv environment can't be built: {error.filename}: {error.strerror}") from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, home, ignore_errors=True))

    def _kept(self) -> list[Path]:
        """Complete environments, the last used first."""
        if not self._folder.is_dir():
            return []
        found = [path for path in self._folder.iterdir() if not path.name.startswith(_TEMPORARY) and _is_whole(path)]
        return sorted(found, key=lambda home: (_used(home), home.name), reverse=True)

    async def _remove_old(self) -> None:
        now, kept, size = time.time(), 0, 0
        old = []
        for home in self._kept():
            idle, room = now - _used(home), _meta(home)["bytes"]
            over = kept == ENVIRONMENTS_MAX or size + room > BYTES_MAX or idle > AGE_SECONDS_MAX
            if over and idle > RESTING_SECONDS:
                old.append(home)
            else:
                kept, size = kept + 1, size + room
        await self._remove(old)

    async def _remove(self, homes: Iterable[Path]) -> None:
        """Those that nobody uses: out of their places at once, then from the disk."""
        gone = []
        for home in homes:
            if home.name not in self._in_use:
                gone.append(home.with_name(f"{_TEMPORARY}removed-{os.getpid()}-{next(self._numbers)}"))
                with suppress(OSError):
                    os.rename(home, gone[-1])
        for folder in gone:
            await trio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


async def _make(uv: str, recipe: Recipe, python: str, root: Path, home: Path) -> None:
    """Everything that uv has to do for an environment at `home`; once more from its cache where the network failed."""
    variables = {"UV_PROJECT_ENVIRONMENT": str(home), "VIRTUAL_ENV": str(home)}
    await call_uv(uv, ["venv", "--quiet", "--relocatable", "--python", python, str(home)], root, variables)
    target = ["--python", str(home / "bin" / "python")]
    try:
        await call_uv(uv, [*recipe.command, *target], root, variables)
    except HostFailed as failed:
        try:
            await call_uv(uv, [*recipe.command, *target, "--offline"], root, variables)
        except (HostFailed, UsageError):
            raise failed from None


async def _described(python: str) -> dict[str, Any]:
    """What an interpreter says of itself and its distributions."""
    if python == sys.executable:
        return interpreter.describe()
    described: dict[str, Any] = await trio.to_thread.run_sync(_ask, python)
    return described


def _ask(python: str) -> dict[str, Any]:
    variables = {**os.environ, "PYTHONHOME": "", "PYTHONPATH": ""}
    try:
        done = subprocess.run(
            [python, "-B", interpreter.__file__],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS_MAX,
            check=True,
        )
        described: dict[str, Any] = json.loads(done.stdout)
        if not isinstance(described, dict) or described.keys() != interpreter.describe().keys():
            raise ValueError(f"{python} is no Python")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NoCapableWorker(f"its interpreter {python} does not work: {type(error).__name__}") from None
    return described


def _own() -> Environment:
    """What the node itself runs in."""
    described = interpreter.describe()
    return _environment("ambient", _digest_of(described), sys.executable, described, ())


def _environment(
    kind: str, digest: str, python: str, described: Mapping[str, Any], variables: tuple[tuple[str, str], ...]
) -> Environment:
    words = (described["implementation"], described["python"], described["platform"])
    return Environment(kind, digest, python, variables, *words, tuple(described["distributions"]))


def _built(home: Path, needs_pytest: bool) -> Environment:
    meta = _meta(home)
    fault = _pytest_fault(meta["distributions"]) if needs_pytest else ""
    if fault:
        raise UsageError(
            f"the suite's uv environment has {fault}: add it to the dependencies, or name its group or extra in "
            "[tool.mesh] of pyproject.toml"
        )
    python = home / "bin" / "python"
    return _environment("uv", home.name, str(python), meta, _variables(python, home))


def _variables(python: Path, home: Path | None) -> tuple[tuple[str, str], ...]:
    """The node's own Python must not show through: an empty PYTHONPATH is none."""
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])
    return (("PATH", path), ("PYTHONHOME", ""), ("PYTHONPATH", ""), ("VIRTUAL_ENV", str(home or "")))


def _digest(recipe: Recipe, described: Mapping[str, Any], bundle: Cid) -> str:
    parts = [recipe.digest, described["implementation"], described["python"], described["platform"]]
    return _hash([*parts, bundle if recipe.of_tree else ""])


def _digest_of(described: Mapping[str, Any]) -> str:
    return _hash([described[name] for name in ("implementation", "python", "platform", "distributions")])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:DIGEST_CHARACTERS]


def _fits(version: Any, wanted: str) -> bool:
    """Whether "3.12.1" is the "3.12" that is wanted."""
    return version == wanted or str(version).startswith(f"{wanted}.")


def _pytest_fault(distributions: Iterable[str]) -> str:
    """What is wrong with the pytest that is installed, as the end of "it has"; empty if nothing is."""
    version = next((line.partition(" ")[2] for line in distributions if line.startswith("pytest ")), None)
    if version is None:
        return "no pytest"
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < PYTEST_OLDEST:
        return f"pytest {version}, which is older than {'.'.join(map(str, PYTEST_OLDEST))}"
    return ""


def _meta(home: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((home / META).read_text())
    return meta


def _is_whole(home: Path) -> bool:
    """Whether it says what it is: a host that lost its power may have kept the name alone."""
    try:
        return {"bytes", "bundle"} <= _meta(home).keys()
    except (OSError, ValueError):
        return False


def _used(home: Path) -> float:
    """Seconds since the epoch."""
    return (home / META).stat().st_mtime


def _size(home: Path) -> int:
    """Bytes on the disk, those that it shares with uv's cache included."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512 for folder, _, names in os.walk(home) for name in names
    )
