"""The token for `/metrics` alone: in the home, and the same over restarts, so that a Prometheus can be told once."""

import os
import re
import secrets
import tempfile
from pathlib import Path

from protocols.errors import UsageError

FILE = "metrics.token"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}\Z")


def scrape_token(home: Path) -> str:
    """What the file holds: put there before (for a lab with one token), or made now, readable by its owner only."""
    path = home / FILE
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return _make(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({type(error).__name__}): it holds the token for /metrics") from None
    if not _TOKEN.match(token):
        raise UsageError(f"{path} holds no token: 16 to 512 letters, digits or any of ._~+/=- on one line are expected")
    return token


def _make(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".metrics-")  # made with mode 0600
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, path)
    return token
