"""The token for `/metrics` alone: in the home, and the same over restarts, so that a Prometheus can be told once."""

import re
import secrets
from pathlib import Path

from mesh.api.lasting import write_private
from protocols.errors import UsageError

FILE = "metrics.token"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}\Z")


def scrape_token(home: Path) -> str:
    """What the file holds: put there before (for a lab with one token), or made now, readable by its owner only."""
    path = home / FILE
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        write_private(path, f"{token}\n")
        return token
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({type(error).__name__}): it holds the token for /metrics") from None
    if not _TOKEN.match(token):
        raise UsageError(f"{path} holds no token: 16 to 512 letters, digits or any of ._~+/=- on one line are expected")
    return token
