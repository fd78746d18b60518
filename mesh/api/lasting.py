"""What a node's API keeps in its home from one life to the next: its token, and the port that the system picked.

A page that is open, a link and a scraper go on when the node is restarted, for they know both. Whoever removes the
token's file shuts all of them out at the next start.
"""

import os
import re
import secrets
import tempfile
from pathlib import Path

from protocols.errors import StorageError

TOKEN_FILE = "api-token"
PORT_FILE = "api-port"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}\Z")


def lasting_token(home: Path) -> str:
    """The token of this home, made at its first life; one that is damaged, or that others may read, is replaced."""
    path = home / TOKEN_FILE
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        mode, token = 0o600, ""
    if not _TOKEN.match(token) or mode & 0o077:
        token = secrets.token_urlsafe(32)
        write_private(path, f"{token}\n")
    return token


def remembered_port(home: Path) -> int:
    """The port of the last life, 0 if there is none."""
    try:
        port = int((home / PORT_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def remember_port(home: Path, port: int) -> None:
    if port != remembered_port(home):
        write_private(home / PORT_FILE, f"{port}\n")


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner only. `StorageError`."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # made with mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}") from error
