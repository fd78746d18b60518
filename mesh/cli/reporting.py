"""Reports that were asked for: which they are, where they go, and their making once the run has ended.

Kinds are entry points of the group `mesh.reporters`; ours are known without a look at what is installed. All that can
be wrong is said before anything is submitted; afterwards a report that can't be made is told of, and the others are
made.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.cli.arguments import absolute
from mesh.cli.client import Client
from mesh.cli.output import note
from mesh.cli.report_files import DirectoryFiles, fetched
from mesh.reporters.model import Appended, NothingToReport, Output, Pieces, Printed, Report, Reporter, Written
from protocols.errors import MeshError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

GROUP = "mesh.reporters"

OURS = {
    "coverage": "mesh.reporters.coverage:COVERAGE",
    "github": "mesh.reporters.github:GITHUB",
    "gitlab": "mesh.reporters.gitlab:GITLAB",
    "html": "mesh.reporters.page:HTML",
    "jenkins": "mesh.reporters.jenkins:JENKINS",
    "json": "mesh.reporters.plain:JSON",
    "jsonl": "mesh.reporters.reportlog:REPORTLOG",
    "junit": "mesh.reporters.plain:JUNIT",
    "markdown": "mesh.reporters.markdown:MARKDOWN",
}

AUTO, NONE = "auto", "none"

EXIT_INTERNAL = 3
"""Of a run that passed, when a report of ours could not be written."""

HELP = (
    f"write a report when the run has ended: {', '.join(OURS)}, or one of a plugin; {AUTO!r}: those of the CI service "
    f"that this is; {NONE!r}: not even those that the project names; may be repeated"
)


def add_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", action="append", default=[], metavar="KIND[:PATH]", help=HELP)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A report that is to be made."""

    kind: str
    reporter: Reporter
    target: Path | None
    """A file, or a directory; None: only what it prints and appends."""
    directory: bool

    def named(self, rename: Callable[[Path], Path]) -> "Wanted":
        """With another target, as several runs of one command have."""
        return self if self.target is None else replace(self, target=rename(self.target))


def choose(
    flags: Sequence[str],
    configured: Sequence[str] | None,
    root: Path,
    variables: Mapping[str, str],
    flag: str = "--report",
) -> list[Wanted]:
    """What `flag` says, else the project's `reports` (paths are then relative to its `root`), else what the CI
    service takes from a step's output alone. `UsageError` for what is no report, or has no place to go to."""
    if flags:
        source, base, asked = flag, Path.cwd(), list(flags)
    else:
        source, base = "reports in [tool.mesh]", root
        asked = list(configured) if configured is not None else _by_itself(variables)
    if NONE in asked:
        if len(asked) > 1:
            raise UsageError(f"{source}: {NONE!r} means that there is no report: it stands alone")
        return []
    wanted: list[Wanted] = []
    for text in asked:
        for one in _of_ci(variables) if text == AUTO else [text]:
            wanted.append(_wanted(one, source, base, inside=not flags))
    for place, this in enumerate(wanted):
        for other in wanted[:place]:
            if this.target is not None and this.target == other.target:
                raise UsageError(f"{source}: {other.kind} and {this.kind} would both be written to {this.target}")
    return wanted


def _by_itself(variables: Mapping[str, str]) -> list[str]:
    """Where nothing is asked for: annotations cost nothing and leave no file."""
    return ["github"] if variables.get("GITHUB_ACTIONS") == "true" else []


def _of_ci(variables: Mapping[str, str]) -> list[str]:
    """What `auto` stands for here."""
    if variables.get("GITHUB_ACTIONS") == "true":
        return ["github"]
    if variables.get("GITLAB_CI") == "true":
        return ["gitlab"]
    return ["jenkins"] if variables.get("JENKINS_URL") else []


def _wanted(text: str, source: str, base: Path, inside: bool) -> Wanted:
    """`inside`: a project, which may come from anybody, says where something is written: in itself only."""
    kind, colon, where = text.partition(":")
    reporter = _reporter(kind, source)
    if colon and not where:
        raise UsageError(f"{source}: {text[:80]!r} names no path after the colon")
    directory = reporter.target.endswith("/")
    if not where and not reporter.target:
        return Wanted(kind, reporter, None, directory)
    target = absolute(base / Path(where or reporter.target).expanduser())
    if where.endswith("/") and not directory:
        raise UsageError(f"{source}: {kind} is one file, and {where!r} a directory: name the file")
    if inside and not target.resolve().is_relative_to(base.resolve()):
        raise UsageError(f"{source}: {kind}: {target} lies outside of the project; --report may write there")
    _check_place(target, directory, f"{source}: {kind}")
    return Wanted(kind, reporter, target, directory)


def _check_place(target: Path, directory: bool, what: str) -> None:
    """That something can be written there; directories that lack are made later."""
    if target.is_dir() and not directory:
        raise UsageError(f"{what}: {target} is a directory; name a file")
    if directory and target.exists() and not target.is_dir():
        raise UsageError(f"{what}: {target} is a file; name a directory")
    above = next(parent for parent in target.parents if os.path.lexists(parent))
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"{what}: nothing can be written below {above}")


def _reporter(kind: str, source: str) -> Reporter:
    if kind in OURS:
        module, _, name = OURS[kind].partition(":")
        found: Any = getattr(import_module(module), name)
        assert isinstance(found, Reporter)
        return found
    others = plugins()
    if kind not in others.names:
        known = ", ".join(sorted({*OURS, *others.names}))
        raise UsageError(f"{source}: {kind[:80]!r} is no kind of report; known are {known}, {AUTO} and {NONE}")
    try:
        found = others[kind].load()
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise UsageError(f"{source}: the plugin of {kind!r} can't be loaded: {_said(error)}") from None
    if not isinstance(made, Reporter) or not isinstance(made.target, str):
        raise UsageError(f"{source}: the plugin of {kind!r} has no 'target' and 'outputs': it is no reporter")
    return made


def plugins() -> "EntryPoints":
    """Those that are installed, ours among them."""
    from importlib.metadata import entry_points  # 20 ms that few runs need

    return entry_points(group=GROUP)


def make_reports(
    client: Client, finished: Mapping[str, Any], wanted: Sequence[Wanted], root: Path | None, quiet: bool
) -> int:
    """Of a run that ended; `root`: its tree, if it is here. The exit code that this asks for: 0, or 3 if one of ours
    could not be written."""
    if not wanted:
        return 0
    if not finished.get("report"):
        note(f"run {finished['run']} ended without a report: there is nothing to make others of")
        return 0
    with fetched(client, str(finished["report"])) as files:
        return _make(Report(str(finished["report"]), files, os.environ, str(root or "")), wanted, quiet)


def make_reports_of(
    directory: Path, cid: str, wanted: Sequence[Wanted], client: Client, quiet: bool, tell: bool = True
) -> int:
    """The same of a report that was fetched as a whole. `tell`: of each, where it is."""
    with DirectoryFiles(directory, client) as files:
        return _make(Report(cid, files, os.environ), wanted, quiet, tell)


def _make(report: Report, wanted: Sequence[Wanted], quiet: bool, tell: bool = True) -> int:
    code = 0
    for one in wanted:
        try:
            written = [_put(output, one, quiet) for output in one.reporter.outputs(report)]
        except NothingToReport as nothing:
            note(f"no {one.kind} report: {nothing}")
            continue
        except Exception as error:
            note(f"the {one.kind} report could not be made: {_said(error)}")
            code = EXIT_INTERNAL if one.kind in OURS else code
            continue
        if tell and one.target is not None and any(written):
            note(f"{one.kind} report: {one.target}{'/' if one.directory else ''}")
    return code


def _put(output: Output, wanted: Wanted, quiet: bool) -> bool:
    """Whether a file was written. `quiet`: stdout is for JSON alone."""
    match output:
        case Printed(text):
            if text and quiet:
                note(text)
            elif text:
                print(text, flush=True)
            return False
        case Appended(path, pieces):
            with Path(path).open("ab") as file:
                file.writelines(_encoded(pieces))
            return True
        case Written(pieces, name):
            if wanted.target is None:
                return False
            target = absolute(wanted.target / name) if wanted.directory else wanted.target
            if wanted.directory and (target == wanted.target or not target.is_relative_to(wanted.target)):
                raise ValueError(f"{name!r} is no file below its directory")
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.partial")
            try:
                with partial.open("wb") as file:
                    file.writelines(_encoded(pieces))
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            return True


def _encoded(pieces: Pieces) -> Iterable[bytes]:
    return (piece.encode("utf-8", "backslashreplace") if isinstance(piece, str) else piece for piece in pieces)


def _said(error: Exception) -> str:
    if isinstance(error, MeshError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
