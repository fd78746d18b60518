"""From `mesh run`'s words to a bundle's root, the files in it, and a spec: everything that can be wrong is said here.

pytest runs at the bundle's root, wherever the command was typed: paths in its arguments are made relative to that root.
A path is what exists from where the command was typed; an argument that is a flag's value (`-k tests`) is none.
"""

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.scheduler.environments import checked_python
from mesh.scheduler.requirements import parse as parse_requirement
from protocols.errors import UsageError
from protocols.inputs import UNSEEN

VERSION_FILE = ".python-version"
"""Where uv and pyenv look for a project's Python."""
VERSION_FILE_BYTES_MAX = 4096

PATH_CHARACTERS_MAX = 4096

_FLAGS_WITH_VALUE = frozenset(
    (
        *("-k", "-m", "-p", "-o", "-W", "-n", "-r", "--capture", "--color", "--deselect", "--dist", "--durations"),
        *("--durations-min", "--import-mode", "--junit-prefix", "--log-cli-level", "--log-level", "--maxfail"),
        *("--override-ini", "--tb", "--timeout", "--verbosity"),
    )
)
"""Of pytest and well-known plugins: those whose next word is surely no path."""

_EXIT_FIRST = re.compile(r"-[vqslx]*x[vqslx]*\Z")
"""-x, alone or in a bundle such as -xvs."""


_OF_THIS_TREE = frozenset(("--lf", "--last-failed", "--sw", "--stepwise", "--stepwise-skip", "--sw-skip"))
"""They go by pytest's cache of earlier runs, which no worker has: all would run, as if they had not been given."""


@dataclass(frozen=True, slots=True)
class Submission:
    root: Path
    names: tuple[str, ...]
    """The bundle's files, relative to `root`."""
    spec: dict[str, Any]
    """As `POST /api/runs` takes it, without the bundle's CID."""


def prepare(args: argparse.Namespace) -> Submission:
    """`UsageError` for whatever is wrong; walks the tree."""
    from mesh.content.tree import bundle_files, bundle_root

    _check_expressions(args)
    if args.exec is None and args.each:
        raise UsageError("--each names files for --exec, which is not given")
    if args.exec is not None and not args.exec.strip():
        raise UsageError("--exec needs a shell command, such as --exec 'make check'")
    if args.exec is not None and args.pytest_args:
        raise UsageError("--exec runs a shell command; pytest's arguments after '--' have no place beside it")
    if args.exec is not None and args.cached:
        raise UsageError("--cached reuses verdicts of pytest's tests; what a command of --exec reads is not seen")
    for before, word in _with_previous(args.pytest_args):
        if word in _OF_THIS_TREE and before not in _FLAGS_WITH_VALUE:
            raise UsageError(f"{word} goes by a cache that workers lack: try 'mesh retry RUN' or 'pytest --mesh --lf'")
    if args.exec is not None and args.each and "{}" not in args.exec:
        raise UsageError("--exec must hold {} where each of the --each files is to stand")
    root, start = bundle_root(args.path or ".")
    names = tuple(bundle_files(root))
    if not names:
        raise UsageError(f"{root} holds no file to run")
    arguments: list[str] = []
    if args.exec is None:
        if start != "." and (args.path is not None or not _names_tests(args.pytest_args)):
            arguments.append(start)
        arguments += at_root(args.pytest_args, root)
    spec = _spec(args, root, names, arguments)
    if args.exec is not None:
        spec |= {"command": args.exec, "files": [_each(word, root) for word in args.each]}
    return Submission(root, names, spec)


def prepare_suite(args: argparse.Namespace, root: Path, arguments: list[str]) -> Submission:
    """The same for a suite whose root, and arguments as they read at the root, are known."""
    from mesh.content.tree import bundle_files

    _check_expressions(args)
    names = tuple(bundle_files(root))
    return Submission(root, names, _spec(args, root, names, arguments))


def allowed_unseen(text: str) -> list[str]:
    """The value of --cached-allow: what tests may use whose verdicts are reused all the same."""
    found = sorted({word.strip() for word in text.split(",")})
    for word in found:
        if word not in UNSEEN:
            raise UsageError(f"{word!r} is none of {', '.join(UNSEEN)}")
    return found


def _check_expressions(args: argparse.Namespace) -> None:
    if args.cached_allow and not args.cached:
        raise UsageError("--cached-allow is of use beside --cached, which is not given")
    for flag, expression in (("--requires", args.requires), ("--prefers", args.prefers)):
        try:
            parse_requirement(expression)
        except UsageError as error:
            raise UsageError(f"{flag}: {error}") from None


def _spec(args: argparse.Namespace, root: Path, names: tuple[str, ...], arguments: list[str]) -> dict[str, Any]:
    if args.env == "uv" and not any(_INSTALLABLE.fullmatch(name) for name in names):
        raise UsageError(
            f"--env uv: {root} has none of uv.lock, pyproject.toml and requirements.txt: there is nothing to install"
        )
    return {
        "name": root.name or "root",
        "project": root.name or "root",
        "arguments": arguments,
        "priority": args.priority,
        "share": args.share,
        "deadline": args.deadline,
        "preempt": args.preempt,
        "after": args.after,
        "requires": args.requires,
        "prefers": args.prefers,
        "test_type": args.test_type,
        "worker_count": args.worker_count,
        "retries": args.retries,
        "hedge": args.hedge,
        "cached": args.cached,
        "cached_allow": args.cached_allow,
        "timeout": args.test_timeout,
        "environment": args.env,
        "python": (args.python or [_pinned_python(root, names) if args.env == "uv" else ""])[0],
        "maxfail": maxfail(arguments),
    }


def maxfail(words: list[str]) -> int:
    """What -x and --maxfail among pytest's arguments ask for, the last one winning; 0: no limit."""
    found = 0
    for before, word in _with_previous(words):
        flag, equals, value = word.partition("=")
        if word == "--exitfirst" or _EXIT_FIRST.match(word):
            found = 1
        elif before == "--maxfail" or (flag == "--maxfail" and equals):
            text = value if equals else word
            if not (text.isascii() and text.isdigit()):
                raise UsageError(f"--maxfail {text[:80]!r} is not a whole number")
            found = int(text)
    return found


def at_root(words: list[str], root: Path) -> list[str]:
    """pytest's arguments, typed here, as they read at the bundle's root."""
    return [_at_root(word, before, root) for before, word in _with_previous(words)]


def _with_previous(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(["", *words], words, strict=False))


def _at_root(word: str, before: str, root: Path) -> str:
    """`word` as it reads at the root; `before` is the word before it."""
    if before in _FLAGS_WITH_VALUE:
        return word
    if word.startswith("--") and "=" in word:
        flag, _, value = word.partition("=")
        return word if flag in _FLAGS_WITH_VALUE else f"{flag}={_at_root(value, flag, root)}"
    text, mark, test = word.partition("::")
    if not text or text.startswith("-") or len(text) > PATH_CHARACTERS_MAX or "\0" in text:
        return word
    inside = _inside(text, root)
    if inside is not None and os.path.lexists(text):
        return inside + mark + test
    if os.path.isabs(text) and inside is None and not before.startswith("-"):  # a flag's value may mean the worker's
        raise UsageError(f"{text!r} lies outside {root}, the tree that is sent to the workers")
    return word


def _inside(text: str, root: Path) -> str | None:
    """The path `text`, from here, relative to the root; None if it lies outside. A link at its end stays a link."""
    absolute = os.path.abspath(text)
    real = os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute))
    relative = os.path.relpath(real, os.path.realpath(root))
    return None if relative == ".." or relative.startswith("../") else relative


def _names_tests(words: list[str]) -> bool:
    """Whether pytest's own arguments say where the tests are."""
    for before, word in _with_previous(words):
        if word == "--pyargs":
            return True
        text = word.partition("::")[0]
        if text and not text.startswith("-") and before not in _FLAGS_WITH_VALUE and os.path.exists(text):
            return True
    return False


def _each(word: str, root: Path) -> str:
    if not os.path.isfile(word):
        raise UsageError(f"--each: there is no file {word!r}")
    inside = _inside(word, root)
    if inside is None:
        raise UsageError(f"--each: {word!r} lies outside {root}, the tree that is sent to the workers")
    return inside


_INSTALLABLE = re.compile(r"uv\.lock|pyproject\.toml|requirements[^/]*\.txt")


def named_python(text: str) -> str:
    """The value of --python: a version, or the absolute path of an interpreter."""
    return checked_python(os.path.abspath(os.path.expanduser(text)) if "/" in text else text)


def _pinned_python(root: Path, names: tuple[str, ...]) -> str:
    """The version in the tree's .python-version; empty where it has none, or names another implementation."""
    if VERSION_FILE not in names:
        return ""
    with (root / VERSION_FILE).open("rb") as file:
        words = file.read(VERSION_FILE_BYTES_MAX).decode("utf-8", "replace").split()
    try:
        return checked_python(words[0]) if words and "/" not in words[0] else ""
    except UsageError:
        return ""
