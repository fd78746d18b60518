"""Wheels without an index: pytest and what it needs, packed again from where they are installed, so that real uv can
build environments on a machine that has nothing but what `make` installed."""

import base64
import hashlib
import os
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

WITH_PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


def pack(folder: Path, names: tuple[str, ...] = WITH_PYTEST) -> Path:
    """`folder`, with a wheel of each of these distributions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        _repack(distribution(name), folder)
    return folder


def _repack(found: Distribution, folder: Path) -> None:
    """A wheel of pure Python from an installed distribution's files."""
    contents = {}
    for path in found.files or ():
        name = path.as_posix()
        if not name.startswith("..") and not name.endswith((".pyc", "/RECORD", "/INSTALLER", "/REQUESTED")):
            contents[name] = Path(str(path.locate())).read_bytes()
    metadata = next(name.split("/")[0] for name in contents if name.endswith(".dist-info/METADATA"))
    write_wheel(folder, metadata.removesuffix(".dist-info"), contents)


def write_wheel(folder: Path, stem: str, contents: dict[str, bytes]) -> None:
    """`stem`: "name-version"; what its dist-info lacks is added."""
    info = f"{stem}.dist-info"
    name, _, version = stem.rpartition("-")
    contents.setdefault(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode())
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{name},{_hash(data)},{len(data)}" for name, data in contents.items()]
    contents[f"{info}/RECORD"] = ("\n".join([*record, f"{info}/RECORD,,"]) + "\n").encode()
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for name, data in contents.items():
            wheel.writestr(zipfile.ZipInfo(name), data)


def _hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def uv_variables(wheels: Path, cache: Path) -> dict[str, str]:
    """A user's configuration of uv that reaches no index, as variables of the node."""
    return {"UV_FIND_LINKS": os.fspath(wheels), "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_CACHE_DIR": os.fspath(cache)}
