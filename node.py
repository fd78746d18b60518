"""One program on every host: `python node.py --role auto` starts a node and says, line by line, what becomes true.

The lines are "key: value". What lets others in (the ticket, the dashboard's token) is printed on a terminal only.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mesh.cli.client import read_endpoint
from mesh.cli.loading import load_serve
from mesh.cli.node_flags import parse
from mesh.options import NodeOptions
from protocols.errors import MeshError, cause

EXIT_INTERNAL = 3

LABELS = {"peer": "peer", "listen": "listening", "home": "home", "ticket": "ticket", "dashboard": "dashboard"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; the exit code."""
    try:
        options, flags = parse(sys.argv[1:] if argv is None else argv)
        return _run(options, flags.log_format, flags.log_level)
    except KeyboardInterrupt:
        return 0
    except SystemExit as leaving:  # --help
        return leaving.code if isinstance(leaving.code, int) else 0
    except (Exception, BaseExceptionGroup) as error:
        return _explain(error)


def _run(options: NodeOptions, log_format: str, log_level: str) -> int:
    serve = load_serve()
    import trio

    from mesh.cli.logging_setup import set_up

    structured = set_up(log_format, log_level)
    said = announcer(options.home)

    def announce(key: str, text: str) -> None:
        if key == "peer" and structured is not None:
            structured.peer = text
        said(key, text)

    code: int = trio.run(serve, options, announce)
    return code


def announcer(home: Path) -> Callable[[str, str], None]:
    """Prints a fact. The coordinator comes whenever it changes; everything else once (a listening address each)."""
    terminal = sys.stdout.isatty()

    def announce(key: str, text: str) -> None:
        if key == "ticket" and not terminal:
            return
        if key == "dashboard" and terminal:
            endpoint = read_endpoint(home)
            text = f"{text}/#token={endpoint.token}" if endpoint is not None else text
        try:
            print(f"{LABELS.get(key, key)}: {text}", flush=True)
        except BrokenPipeError:
            # Whoever started the node stopped reading; the node goes on.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return announce


def _explain(error: BaseException) -> int:
    """One sentence for what a user can mend; a bug goes to the log with its traceback."""
    found = cause(error, _is_users)
    if _is_users(found):
        where = f"{found.filename}: " if isinstance(found, OSError) and found.filename else ""
        print(f"node.py: {where}{found.strerror if isinstance(found, OSError) else found}", file=sys.stderr)
        return found.exit_code if isinstance(found, MeshError) else EXIT_INTERNAL
    import logging

    logging.getLogger("node").critical("the node ended by an internal error: %r", error, exc_info=error)
    return EXIT_INTERNAL


def _is_users(error: BaseException) -> bool:
    """Whether a user can mend it: all that is raised on purpose, and a full disk, which any write may meet."""
    return isinstance(error, MeshError) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


if __name__ == "__main__":
    sys.exit(main())
