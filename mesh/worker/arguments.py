"""pytest arguments of a run, as a slot may see them. Pure.

Some make no sense on another host, where no terminal is, or are the mesh's own affair: they are dropped, or refused
with a sentence. What the client uses them for (such as -x, --junitxml) it does itself.
"""

from collections.abc import Sequence

from protocols.errors import UsageError

REFUSED = {
    "--pdb": "there is no terminal on the worker",
    "--trace": "there is no terminal on the worker",
    "--pdbcls": "there is no terminal on the worker",
    "--collect-only": "the mesh collects by itself",
    "--co": "the mesh collects by itself",
    "--setup-plan": "nothing would be run",
    "--fixtures": "nothing would be run",
    "--funcargs": "nothing would be run",
    "--fixtures-per-test": "nothing would be run",
    "--markers": "nothing would be run",
    "--help": "nothing would be run",
    "-h": "nothing would be run",
    "--version": "nothing would be run",
    "-V": "nothing would be run",
    "-f": "a worker does not watch files",
    "--looponfail": "a worker does not watch files",
    "--rootdir": "the root is the submitted tree",
    "--basetemp": "each slot has its own",
}
DROPPED = frozenset(
    (
        "-x",
        "--exitfirst",
        "-d",
        "--tee",
        "--no-loadscope-reorder",
        "--loadscope-reorder",
        "--cov-append",
        "--no-cov-on-fail",
    )
)
DROPPED_WITH_VALUE = frozenset(
    (
        "-n",
        "--numprocesses",
        "--dist",
        "--tx",
        "--px",
        "--maxprocesses",
        "--max-worker-restart",
        "--rsyncdir",
        "--maxfail",
        "--junitxml",
        "--junit-xml",
        "--report-log",
        "--html",
        "--durations",
        "--durations-min",
        "--color",
        "--cov-report",
        "--cov-fail-under",
    )
)
SHORT_FLAGS = "xvqslhVd"
"""Letters that may share one dash, as in -xvs."""


def for_slots(arguments: Sequence[str]) -> tuple[str, ...]:
    """The arguments that go to pytest on this host; `UsageError` for one that can't."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if argument[:2] == "-n" and argument[2:3] not in ("", "="):
            continue
        if name in REFUSED:
            raise UsageError(f"pytest argument {name} can't be used in a mesh: {REFUSED[name]}")
        if name in DROPPED:
            continue
        if name in DROPPED_WITH_VALUE:
            if not equals:
                next(rest, None)
            continue
        if name == "--capture" and argument.endswith("tee-sys"):
            argument = "--capture=sys"
        kept += _without_short(argument)
    return tuple(kept)


def _without_short(argument: str) -> list[str]:
    """One argument, the letters that are dropped taken out of a bundle such as -xvs."""
    letters = argument[1:]
    if argument[:1] != "-" or argument[:2] == "--" or len(letters) < 2 or set(letters) - set(SHORT_FLAGS):
        return [argument]
    for letter in letters:
        if f"-{letter}" in REFUSED:
            raise UsageError(f"pytest argument -{letter} can't be used in a mesh: {REFUSED[f'-{letter}']}")
    left = "".join(letter for letter in letters if f"-{letter}" not in DROPPED)
    return [f"-{left}"] if left else []
