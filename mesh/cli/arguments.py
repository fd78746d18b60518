"""Flags: a parser that answers in one sentence, and the checks that several verbs share.

Every failure is a `UsageError` (exit code 4, as pytest has it; argparse's own 2 means "interrupted" here).
"""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mesh.api.checks import parse_cid
from protocols.errors import UsageError

SECONDS_MAX = 10 * 365 * 86400.0

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print its usage and exit; takes no abbreviated flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        first = message[0].lower() + message[1:]
        raise UsageError(f"{first.splitlines()[0]} (see '{self.prog} --help')")


def add_global_options(parser: argparse.ArgumentParser, timeout: bool = True) -> None:
    """What every verb takes; absent ones leave no attribute, so that those given before the verb stay."""
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--home", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="state directory of the node"
    )
    group.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON and nothing else")
    if timeout:
        group.add_argument(
            "--timeout", type=seconds, metavar="S", default=argparse.SUPPRESS, help="give up after S seconds (exit 12)"
        )


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` as an argparse type: its `UsageError` then tells the flag too."""

    def check(value: str) -> T:
        try:
            return parse(value)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return check


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def check(value: str) -> int:
        if value.removeprefix("-").isascii() and value.removeprefix("-").isdigit() and least <= int(value) <= most:
            return int(value)
        bounds = f"from {least} to {most}" if most < 2**31 - 1 else f"of at least {least}"
        raise argparse.ArgumentTypeError(f"{value[:80]!r} is not a whole number {bounds}")

    return check


def seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{value[:80]!r} is not a number of seconds above 0")
    return number


def slots(value: str) -> int | None:
    """N or "auto"."""
    return None if value == "auto" else whole(1, 4096)(value)


def content_path(value: str) -> tuple[str, str]:
    """CID[/PATH], "/ipfs/" before it or not."""
    cid, _, path = value.removeprefix("/ipfs/").partition("/")
    return checked(parse_cid)(cid), path.strip("/")


def default_home() -> Path:
    """`$MESH_HOME`, else the platform's directory for a user's state."""
    named = os.environ.get("MESH_HOME")
    if named:
        return Path(named)
    from platformdirs import user_state_path

    return user_state_path("mesh", appauthor=False)


def checked_home(home: Path) -> Path:
    """The absolute path of a home that exists, or can be made; `UsageError` names what is in the way."""
    home = absolute(home)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--home {home}: {error.strerror or error}") from None
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"--home {home}: this user may not read and write there")
    return home


def absolute(path: Path) -> Path:
    """Without links followed, of a path that need not exist."""
    return Path(os.path.abspath(path.expanduser()))


def output_path(path: Path, suffixes: tuple[str, ...]) -> Path:
    """A file to be written: its name has one of `suffixes`, its directory exists."""
    path = absolute(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{path.name!r} ends in none of {', '.join(suffixes)}, which tell the format")
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent} to write {path.name!r} into")
    if path.is_dir():
        raise UsageError(f"{path} is a directory; name a file")
    return path


def vacant_directory(path: Path) -> Path:
    """A directory to be made: it does not exist yet, or is empty."""
    path = absolute(path)
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise UsageError(f"the directory {path} is not empty; name one that is, or that does not exist")
    elif path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists and is no directory")
    elif not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent} to make {path.name!r} in")
    return path
