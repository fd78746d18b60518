"""What goes to the screen: JSON documents, and colours where somebody can see them."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

_CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


def print_json(document: Any) -> None:
    """One document on one line, at once: it may be a pipe that somebody waits at."""
    print(json.dumps(document, ensure_ascii=False), flush=True)


def print_document(document: Any) -> None:
    """One document for scripts and people alike."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def say_whose(document: Mapping[str, Any]) -> None:
    """Below an answer that no coordinator has backed."""
    if not document.get("agreed", True):
        print("no coordinator answers: this is what the node itself knows")


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def painted(text: str, *styles: str) -> str:
    """`text` in colour on a terminal, unless NO_COLOR is set."""
    if not is_terminal(sys.stdout) or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"


def note(text: str) -> None:
    """Beside the answer, for people: on stderr."""
    print(text, file=sys.stderr, flush=True)
