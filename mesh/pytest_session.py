"""A pytest session whose tests run on the mesh: submit instead of collecting, replay instead of running.

As with pytest-xdist's controller, nothing is collected here; `pytest_runtest_logstart`, `_logreport` and `_logfinish`
are called as results arrive, so that the terminal, --junitxml, --durations, --lf and other plugins' reports work as if
the tests ran here. The limit of -x and --maxfail is the mesh's own (the run ends by it), and pytest counts the same
reports. Whatever ends the session early cancels the run.
"""

import argparse
import contextlib
import os
import shlex
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mesh.cli.arguments import checked_home, default_home, slots
from mesh.cli.client import Client, read_endpoint
from mesh.cli.companion import companion, home_for_once
from mesh.cli.project import read_project
from mesh.cli.reporting import choose, make_reports
from mesh.cli.submission import at_root, prepare_suite
from mesh.content.tree import bundle_root
from mesh.pytest_options import options_of
from mesh.pytest_plugin import OPTIONS
from mesh.pytest_reports import Places, Replay, Told, crash
from mesh.worker.pytest_side import telling
from protocols.codec import decode, encode
from protocols.errors import ContentNotFound, MeshError, UsageError
from protocols.manifests import Manifest, Selection

NONCE_BYTES = 16

END_SECONDS_MAX = 5.0
"""For the run to be cancelled when the session ends early."""

EXIT_INTERRUPTED, EXIT_USAGE, EXIT_NOTHING = 2, 4, 5

OURS = (
    *("--mesh", "--mesh-cached", "--mesh-hedge", "--lf", "--last-failed", "--ff", "--failed-first", "--nf"),
    *("--new-first", "--cache-clear"),
)
OURS_WITH_VALUE = (
    *("--rootdir", "--basetemp", "--lfnf", "--last-failed-no-failures"),
    "--mesh-report",
    *(f"--mesh-{name}" for name, *_ in OPTIONS),
)
"""Arguments that have done their work in this process."""


def activate(config: pytest.Config) -> None:
    """Make this session one of the mesh; whatever is wrong with its arguments is said before anything starts."""
    for option, name in (("usepdb", "--pdb"), ("trace", "--trace"), ("stepwise", "--stepwise")):
        if config.getoption(option, False):
            raise pytest.UsageError(f"{name} needs the tests in this process, one after another: not with --mesh")
    try:
        session = MeshSession(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    for name, value in (("dist", "no"), ("tx", []), ("numprocesses", None)):  # pytest-xdist has no part in this
        if hasattr(config.option, name):
            setattr(config.option, name, value)
    config.pluginmanager.register(session, "meshsession")


class MeshSession:
    """The hooks of such a session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        project = read_project(config.rootpath)
        self._options = options_of(config, project)
        flags = config.getoption("mesh_report")
        self._reports = choose(flags, project.reports, project.root, os.environ, "--mesh-report")
        root, start = bundle_root(config.rootpath)
        self._places = Places(root, "" if start == "." else start + "/")
        self._submission = prepare_suite(self._options, root, self._arguments(root))
        self._slots = _slots(config)
        self._stack = contextlib.ExitStack()
        self._client: Client | None = None
        self._run = ""
        self._events: Iterator[dict[str, Any]] = iter(())
        self._finished: dict[str, Any] | None = None
        self._inside = False
        self._names: dict[str, str] = {}
        self._told_whole: set[str] = set()
        """Tests that are files which skipped themselves: told of when they were collected."""
        self._replay = Replay(config, self._places, self._worker_name)

    # Hooks

    def pytest_report_header(self) -> str:
        return f"mesh: {self._submission.root}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Results come from several tests at once: a line for each file would be torn."""
        reporter: Any = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.showfspath = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        with _said_by_pytest():
            self._submit()
            for event in self._events:
                if event["event"] == "collected":
                    manifest, notes = self._manifest(event["manifest"])
                    self._collected(session, manifest, notes)
                    break
                if event["event"] == "finished":
                    self._finished = event
                    self._not_collected(session, event)
                    break
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            errors = f"{session.testsfailed} error{'s' if session.testsfailed != 1 else ''}"
            raise session.Interrupted(f"{errors} during collection")
        started: set[str] = set()
        with _said_by_pytest():
            for event in self._events:
                if event["event"] == "started" and event["test"] not in started | self._told_whole:
                    started.add(event["test"])
                    self._logstart(event["test"])
                elif event["event"] == "verdict" and event["test"] not in self._told_whole:
                    if event["test"] not in started:
                        self._logstart(event["test"])
                    started.discard(event["test"])
                    self._verdict(event)
                elif event["event"] == "finished":
                    self._finished = event
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
        if self._finished is not None:
            self._tear_down(self._finished)
            self._end(session, self._finished)
            with _said_by_pytest():
                self._cover(self._finished)
        return True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """What `--mesh-report`, or the project, asks for is made."""
        if self._finished is None or self._client is None:
            return
        capture: Any = self._config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext():
            code = make_reports(self._client, self._finished, self._reports, self._submission.root, quiet=True)
        session.exitstatus = session.exitstatus or code

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Which of the tests that passed had to be tried again, and where: pytest itself knows of no other host. And
        how many did not run, since nothing that they read has changed."""
        if self._finished is None or self._client is None:
            return
        from mesh.cli.summary import retried, untrusted

        again = retried(self._client, self._finished) if self._options.retries else {}
        if again:
            terminalreporter.section("tried again", yellow=True)
            for word, line in again["lines"]:
                terminalreporter.write_line(f"{word} {line}")
        if self._options.cached:
            terminalreporter.section("verdicts reused")
            for line in untrusted(self._client, self._finished):
                terminalreporter.write_line(line)
            terminalreporter.write_line(f"{self._finished['reused']} of {self._finished['tests']} tests")

    def pytest_unconfigure(self) -> None:
        """However the session ended: the run ends, too, and the node that was started for it."""
        if self._client is not None and self._run and self._finished is None:
            with contextlib.suppress(MeshError):
                last = Client(self._client.home, self._client.endpoint, END_SECONDS_MAX)
                last.post(f"/api/runs/{self._run}/cancel", {})
        self._stack.close()

    # The way to the mesh

    def _arguments(self, root: Path) -> list[str]:
        """pytest's, as they read at the bundle's root."""
        config = self._config
        words = _without_ours([str(word) for word in config.invocation_params.args])
        arguments = at_root(words, root)
        source = config.args_source
        if source is not config.ArgsSource.ARGS and self._places.in_bundle(""):
            arguments += at_root([str(word) for word in config.args], root)
        elif source is config.ArgsSource.INVOCATION_DIR and config.invocation_params.dir != root:
            arguments += at_root([str(config.invocation_params.dir)], root)
        return arguments

    def _submit(self) -> None:
        home = Path(self._options.home).expanduser().absolute() if self._options.home else default_home()
        endpoint = read_endpoint(home)
        submission = self._submission
        if endpoint is None:
            if not self._options.home:
                home = self._stack.enter_context(home_for_once(home.parent))
            endpoint = self._stack.enter_context(companion(checked_home(home), self._slots))
            self._inside = True
        else:  # which does not have this process's environment
            added = _without_ours(shlex.split(os.environ.get("PYTEST_ADDOPTS", "")))
            submission.spec["arguments"] = [*added, *submission.spec["arguments"]]
        self._client = client = Client(home, endpoint, None)
        spec = {**submission.spec, "maxfail": int(self._config.getoption("maxfail") or 0)}
        selection = last_failed(self._config, self._places)
        if selection is not None:
            with home_for_once(home.parent) as folder:
                (folder / "selection").write_bytes(encode(selection))
                spec["selection"] = client.add(folder / "selection")
        bundle = client.add(submission.root, submission.names)
        self._run = client.submit(os.urandom(NONCE_BYTES), {**spec, "bundle": bundle})
        self._events = client.events(self._run, whole=True)

    def _manifest(self, cid: str) -> tuple[Manifest, dict[str, Any]]:
        assert self._client is not None
        manifest = decode(b"".join(self._client.read(cid)), Manifest)
        return manifest, telling.unpack_notes(manifest.notes)

    def _worker_name(self, peer: str, slot: int) -> str:
        """ "gw0" as with pytest-xdist, after the node's name unless this process started the only one."""
        if self._inside:
            return f"gw{slot}"
        assert self._client is not None
        if peer not in self._names:
            nodes = self._client.get("/api/status")["nodes"]
            self._names = {peer: peer[-6:], **{node["peer"]: node["name"] for node in nodes}}
        return f"{self._names[peer]}/gw{slot}"

    # From events to hooks

    def _collected(self, session: pytest.Session, manifest: Manifest, notes: dict[str, Any]) -> None:
        self._replay.collected(manifest, notes)
        self._tell_of_collection(session, notes, [test.id for test in manifest.tests])

    def _not_collected(self, session: pytest.Session, finished: dict[str, Any]) -> None:
        """The run ended without a manifest: as pytest would have."""
        code, reason = finished["exit_code"], finished.get("reason") or "the run failed"
        data = self._read(finished, "collection.notes")
        if code in (EXIT_INTERRUPTED, EXIT_NOTHING) and data:
            notes = telling.unpack_notes(data)
            self._tell_of_collection(session, notes, [])
            if session.testsfailed or code == EXIT_NOTHING:
                return
        if code == EXIT_NOTHING:
            return
        output = self._read(finished, "collection.txt").decode(errors="replace").strip()
        if code == EXIT_USAGE:
            lines = [line.removeprefix("ERROR: ") for line in output.splitlines() or [reason]]
            raise pytest.UsageError("\n".join(lines))
        if code == EXIT_INTERRUPTED:
            if output and finished["state"] != "cancelled":
                self._print(output)
            raise session.Interrupted(reason)
        pytest.exit(reason, code)

    def _tell_of_collection(self, session: pytest.Session, notes: dict[str, Any], tests: Sequence[str]) -> None:
        config = self._config
        reports = self._replay.collect_reports(notes)
        _say_last_failed(config, tests, self._places)
        for report in reports:
            config.hook.pytest_collectreport(report=report)
            self._told_whole.add(self._places.in_bundle(report.nodeid))
        for name in _mended(config, {self._places.node_id(test.partition("::")[0]) for test in tests}):
            if name not in {report.nodeid for report in reports}:
                config.hook.pytest_collectreport(report=pytest.CollectReport(name, "passed", None, []))
        self._replay.warn(notes["warnings"], notes["root"], "collect")
        chosen = [test for test in tests if test not in self._told_whole]
        session.items = []
        session.testscollected = len(chosen)
        reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter._numcollected = (len(chosen) if tests else len(notes["lines"])) + notes["deselected"]
            if notes["deselected"]:
                unknown = [types.SimpleNamespace() for _ in range(notes["deselected"])]
                reporter.stats.setdefault("deselected", []).extend(unknown)
            reporter.pytest_collection_finish(session)

    def _logstart(self, test: str) -> None:
        node_id = self._places.node_id(test)
        self._config.hook.pytest_runtest_logstart(nodeid=node_id, location=self._replay.location(test))

    def _verdict(self, event: dict[str, Any]) -> None:
        hook, test = self._config.hook, event["test"]
        self._replay.warnings(event)
        for report in self._replay.reports(event):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=self._places.node_id(test), location=self._replay.location(test))

    def _end(self, session: pytest.Session, finished: dict[str, Any]) -> None:
        """What is no matter of tests: the mesh's own exit codes, and a run that somebody stopped."""
        if finished["state"] == "cancelled":
            raise session.Interrupted(f"run {self._run}: {finished.get('reason') or 'cancelled'}")
        if finished["exit_code"] not in (0, 1, EXIT_NOTHING):
            pytest.exit(f"run {self._run}: {finished.get('reason') or 'it failed'}", finished["exit_code"])

    def _tear_down(self, finished: dict[str, Any]) -> None:
        """What fixtures raised after the last test, as errors of nothing in particular."""
        from mesh.cli.summary import teardowns

        assert self._client is not None
        for told in teardowns(self._client, finished) if finished.get("reason") else ():
            place = f"session on {told['name'] or told['worker']}"
            failure = Told(told["error"], crash(told["error"]), place)
            report = pytest.TestReport(place, ("", None, place), {}, "failed", failure, "teardown")
            self._config.hook.pytest_runtest_logreport(report=report)

    def _cover(self, finished: dict[str, Any]) -> None:
        """Where pytest-cov measures: what was measured on the workers is combined with what was measured here."""
        controller = getattr(self._config.pluginmanager.getplugin("_cov"), "cov_controller", None)
        if controller is None or not finished.get("report"):
            return
        from mesh.cli.coverage import gather

        assert self._client is not None
        controller.cov._warn_no_data = False  # of this process alone
        gather(self._client, finished["report"], self._submission.root, Path(controller.combining_cov.config.data_file))

    def _read(self, finished: dict[str, Any], name: str) -> bytes:
        """A file of the run's report; empty if it has none of that name."""
        assert self._client is not None
        if not finished.get("report"):
            return b""
        try:
            return b"".join(self._client.read(finished["report"], name))
        except (UsageError, ContentNotFound):
            return b""

    def _print(self, text: str) -> None:
        reporter: Any = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(text)


@contextlib.contextmanager
def _said_by_pytest() -> Iterator[None]:
    """The mesh's errors as pytest says such things: a sentence and the exit code."""
    try:
        yield
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    except MeshError as error:
        _leave(error)


def _leave(error: MeshError) -> NoReturn:
    pytest.exit(str(error), error.exit_code)


def _slots(config: pytest.Config) -> int | None:
    """--mesh-slots, or what -n of pytest-xdist says; None: as many as there are cores."""
    given = config.getoption("mesh_slots") or config.getoption("numprocesses", None) or "auto"
    try:
        return slots("auto" if given == "logical" else str(given))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--mesh-slots: {error}") from None


def _without_ours(words: list[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name in OURS_WITH_VALUE:
            if not equals:
                next(rest, None)
        elif name not in OURS:
            kept.append(word)
    return kept


# --lf and --ff: the cache of this tree says which


def last_failed(config: pytest.Config, places: Places) -> Selection | None:
    """What --lf or --ff choose; None if they are not given, or know of no failure."""
    only, first = config.getoption("lf", False), config.getoption("failedfirst", False)
    plugin: Any = config.pluginmanager.getplugin("lfplugin")
    if plugin is None or not (only or first):
        return None
    known = tuple(places.in_bundle(str(name)) for name in plugin.lastfailed)
    if known:
        return Selection(known, otherwise_all=True, first=not only)
    if only and config.getoption("last_failed_no_failures", "all") == "none":
        return Selection(())
    return None


def _mended(config: pytest.Config, files: set[str]) -> list[str]:
    """Files that could not be collected at the last time, and were now: what failed in them is to be seen anew."""
    plugin: Any = config.pluginmanager.getplugin("lfplugin")
    return sorted(files & {str(name) for name in plugin.lastfailed}) if plugin is not None else []


def _say_last_failed(config: pytest.Config, tests: Sequence[str], places: Places) -> None:
    """pytest's own words about --lf and --ff."""
    plugin: Any = config.pluginmanager.getplugin("lfplugin")
    if plugin is None or not plugin.active:
        return
    known = {places.in_bundle(str(name)) for name in plugin.lastfailed}
    found = sum(test in known or test.partition("::")[0] in known for test in tests)
    if not known:
        rest = "" if config.getoption("last_failed_no_failures", "all") == "none" else "not "
        said = f"no previously failed tests, {rest}deselecting {'all ' if not rest else ''}items."
    elif not found:
        said = f"{len(known)} known failures not in selected tests"
    else:
        first = " first" if config.getoption("failedfirst", False) else ""
        said = f"rerun previous {found} failure{'s' if found != 1 else ''}{first}"
    plugin._report_status = said
