"""`mesh VERB …`: finds the verb, lets its module parse and run, and turns every end into an exit code and a sentence.

Only the verb's own module is imported. No traceback reaches the screen: that of a bug is kept in a file that is named.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from mesh.cli.arguments import Parser, add_global_options
from protocols.errors import MeshError, UsageError

EXIT_INTERRUPTED = 2
EXIT_INTERNAL = 3
EXIT_BROKEN_PIPE = 141
"""What a shell shows for a command that SIGPIPE ended."""

VERBS = {
    "up": "start a local mesh of several nodes",
    "run": "run a suite, or commands, on the mesh",
    "plan": "where a run would go and how long it would take, without running it",
    "status": "what goes on in the mesh",
    "nodes": "who is here, and what they can do",
    "runs": "list the runs",
    "watch": "follow a run, or the whole mesh",
    "why": "why something waits or failed",
    "cancel": "stop a run",
    "retry": "run again what went wrong in a run",
    "replay": "run a recorded test again from its record alone",
    "logs": "captured output of a run's tests",
    "results": "fetch a report by run or CID and write it out",
    "verify": "check a report's hashes, signatures and completeness",
    "ticket": "print the line that lets a node join",
    "add": "add a file or directory as IPFS content",
    "cat": "print a file by CID",
    "get": "write a file or directory by CID",
    "export": "write content to a CAR file",
    "import": "take in the content of a CAR file",
    "link": "print an address that shows content in a browser",
    "pin": "keep content: add, rm, ls",
    "alerts": "what the mesh noticed that somebody should know",
    "history": "a test, or a project's runs, over time",
    "topology": "draw the mesh",
    "visualize": "draw runs, workers and durations",
    "drain": "let a node finish, and give it nothing more",
    "command": "stop, restart, update or drain a node",
    "raft": "the group that keeps the log: members, progress, health",
    "snapshot": "save what the mesh agreed on, or found a mesh from it",
    "recover": "found the mesh anew when most of its voters are lost",
    "doctor": "check this host",
}

_RUN_LIKE = ("run", "plan")
"""Verbs with the options of a run, and pytest's arguments after "--"."""

_WITH_VALUE = ("--home", "--timeout")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; see interface.md for what each means."""
    return ending("mesh", lambda: _dispatch(sys.argv[1:] if argv is None else list(argv)))


def ending(program: str, work: Callable[[], int]) -> int:
    """The exit code of `work`, whose every failure becomes a sentence of `program`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = work()
        sys.stdout.flush()
        return code
    except MeshError as error:
        return _say(program, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say(program, "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        return EXIT_BROKEN_PIPE
    except SystemExit as leaving:  # --help
        return leaving.code if isinstance(leaving.code, int) else 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(program, f"{where}{error.strerror or error}", EXIT_INTERNAL)
    except Exception as error:
        kept = _keep_traceback()
        return _say(program, f"internal error: {type(error).__name__}: {error} (details in {kept})", EXIT_INTERNAL)


def _dispatch(argv: list[str]) -> int:
    place = _verb_place(argv)
    if place is None:
        _parser("mesh [options] VERB", "\n".join(_overview())).parse_args(argv or ["--help"])
        raise UsageError("name a verb, such as 'run' (see 'mesh --help')")
    verb = argv[place]
    if verb not in VERBS:
        raise UsageError(f"{verb!r} is not a verb of mesh (see 'mesh --help')")
    module = importlib.import_module(f"mesh.cli.{verb}")
    before = Parser(prog="mesh", add_help=False)
    add_global_options(before)
    given = before.parse_args(argv[:place])
    given.home = getattr(given, "home", None)
    given.json = getattr(given, "json", False)
    given.timeout = getattr(given, "timeout", None)
    parser = Parser(prog=f"mesh {verb}", description=module.HELP)
    module.configure(parser)
    add_global_options(parser, timeout=verb not in _RUN_LIKE)  # there, --timeout is per test
    rest = argv[place + 1 :]
    if verb in _RUN_LIKE and "--" in rest:  # what follows is pytest's, untouched
        cut = rest.index("--")
        given.pytest_args = rest[cut + 1 :]
        rest = rest[:cut]
    if verb in _RUN_LIKE:
        from mesh.cli.project import parse_with_project

        args = parse_with_project(parser, rest, given)
    else:
        args = parser.parse_args(rest, given)
    code: int = module.run(args)
    return code


def _verb_place(argv: list[str]) -> int | None:
    """Where the first word stands that is neither a flag nor a flag's value."""
    place = 0
    while place < len(argv):
        if not argv[place].startswith("-"):
            return place
        place += 2 if argv[place] in _WITH_VALUE else 1
    return None


def _parser(usage: str, description: str) -> Parser:
    parser = Parser(prog="mesh", usage=usage, description=description)
    add_global_options(parser)
    return parser


def _overview() -> list[str]:
    width = max(map(len, VERBS)) + 2
    verbs = [f"  {verb:<{width}}{text}" for verb, text in VERBS.items()]
    return ["A peer-to-peer distributed test runner.", "", "verbs:", *verbs, "", "'mesh VERB --help' tells more."]


def _say(program: str, sentence: str, code: int) -> int:
    sys.stdout.flush()
    print(f"{program}: {sentence}", file=sys.stderr)
    return code


def _keep_traceback() -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="mesh-error-", suffix=".txt", delete=False) as file:
        traceback.print_exc(file=file)
    return file.name
