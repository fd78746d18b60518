"""The pytest plugin of the zygote and of spawned slots: it takes pytest's session as far as collection, then stays in
the run loop.

*Lazy*: collection stops at files, which slots collect as they need them (on two slots, one process that collects all
leaves the other idle). *Whole*: everything is collected here, before the fork. Whole is chosen for collecting as such,
and where the list as a whole matters: arguments that name tests inside a file, --lf and its kin, and plugins outside
pytest that modify the list, except those known to look at one item at a time. Conftests do the latter nearly always
(marks and skips), so they don't count. -k, -m and --deselect select by item; the manifest has selected already.

The session's hooks (`pytest_sessionstart`, `pytest_sessionfinish`) run once, in the zygote, as in a serial run; slots
have `config.workerinput`, as with xdist.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _mesh_pytest_side import (
    attributing,
    collecting,
    coverages,
    fixtures,
    inputs,
    processes,
    reporting,
    sharing,
    surroundings,
    teller,
    wire,
)

MARKERS = (
    "requires(expression): what a worker must have to run this test",
    "prefers(expression): what a worker should rather have",
    "exclusive(name): a lock that holds across the mesh",
    "resources(cpu=1, memory=0, gpu=0, disk=0, network=0, hosts=1): what the test takes while it runs",
    "priority(n): earlier when larger",
    "depends(test, …): runs after these tests have passed, and is skipped if they do not",
    "task_type(name): the kind of test",
    "xdist_group(name): tests of one group run one after another on one slot",
    "timeout(seconds): how long the test may take",
)
BY_ITEM = ("_hypothesis_pytestplugin", "pytest_asyncio", "pytest_trio", "anyio", "pytest_timeout", "pytest_mock")
"""Modules of plugins whose `pytest_collection_modifyitems` looks at each item alone."""
BY_LAST_RUN = ("lf", "failedfirst", "newfirst", "stepwise")
SESSION_KNOWN = ("xdist", "_mesh_pytest_side", "time_machine", "pytest_rerunfailures")
"""Modules of plugins that do nothing for a session that the next one would miss."""
STAY_BYTES_MAX = 512 * 1024 * 1024
"""A process that has grown over this does not stay for later runs."""

CLIENT_OPTIONS = (
    "home",
    "slots",
    "requires",
    "prefers",
    "priority",
    "retries",
    "worker-count",
    "env",
    "python",
    "test-type",
    "cached-allow",
)
"""After "--mesh-", those of `mesh.pytest_plugin`."""


class MeshPlugin:
    """Hooks and fixtures that every process of the session has."""

    def __init__(self, settings: dict[str, Any], zygote: Any, pipes: Any) -> None:
        self._settings = settings
        self._zygote = zygote
        self.teller = teller.Teller(settings["root"])
        self._pipes = pipes
        self._stop_at_files = False
        self._session: pytest.Session | None = None
        self.files: dict[str, list[pytest.Collector]] = {}
        """Node ID of a file -> what collects it (lazy)."""
        self.failures: dict[str, str] = {}
        """Node ID of a collector -> why it could not be collected."""
        self.skips: dict[str, tuple[str, str]] = {}
        """Node ID of a file that skips itself as a whole -> (reason, where it says so)."""
        self.deselected: list[str] = []
        """Node IDs."""
        self.reports: list[Any] = []
        """Those of the test under way."""
        self.warnings: list[str] = []
        """Since the last test was reported: its own, and those of what was imported for it."""
        self.artifacts = ""
        """Where the test under way may put artifacts."""
        self.artifacts_used = False
        self.attribution: attributing.Attribution | None = None
        """Where it is asked for what tests read."""
        self.keep_early: Callable[[list[Any]], None] | None = None
        """Saves what was captured in a phase that is over, in case that the process dies in a later one."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config, args: list[str]) -> None:
        if early_config.pluginmanager.hasplugin("xdist"):
            args.append("-n0")

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        """The client's options: an ini file's addopts may hold them, and they mean nothing here."""
        for name in ("--mesh", "--mesh-hedge", "--mesh-cached"):
            parser.addoption(name, action="store_true")
        for name in (*CLIENT_OPTIONS, "report"):
            parser.addoption(f"--mesh-{name}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        """What an ini file's addopts may have set, and makes no sense here."""
        for name, value in (("maxfail", 0), ("usepdb", False), ("trace", False), ("xmlpath", None), ("color", "no")):
            if hasattr(config.option, name):
                setattr(config.option, name, value)
        coverages.quieten(config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        if getattr(config.option, "randomly_seed", None) == "default":
            # pytest-randomly draws one in each process; all hosts of a run must have the same, and each replay
            config.option.randomly_seed = zlib.crc32(os.environ.get("PYTHONHASHSEED", "").encode())
        rerun: Any = sys.modules.get("pytest_rerunfailures")
        if rerun is not None:  # it takes us for an xdist of long ago, which ended a test with its first report
            rerun.works_with_current_xdist = lambda: True
        if hasattr(rerun, "ServerStatusDB") and hasattr(rerun, "StatusDB"):
            rerun.ServerStatusDB = rerun.StatusDB  # beside xdist it serves xdist's workers from a thread: no fork then
        config.pluginmanager.register(fixtures, "mesh-fixtures")
        config.pluginmanager.register(sharing, "mesh-sharing")
        for line in MARKERS:
            config.addinivalue_line("markers", line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        self._session = session
        self._stop_at_files = not (self._settings["collect"] or needs_whole(session.config))

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> pytest.CollectReport | None:
        if not (self._stop_at_files and isinstance(collector, pytest.File)):
            return None
        self.files.setdefault(collecting.text(collector.nodeid), []).append(collector)
        return pytest.CollectReport(collector.nodeid, "passed", None, [])

    @pytest.hookimpl(trylast=True)
    def pytest_make_parametrize_id(self, val: object) -> str | None:
        """A path of the tree, as a parameter, goes by its place in the tree: the same on all hosts, and short (pytest
        numbers parameters of over a hundred characters)."""
        place = os.path.join(self._settings["root"], "")
        return val.replace(place, "") if isinstance(val, str) and place in val else None

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        if self._settings["collect"]:
            self.deselected += [item.nodeid for item in items]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failures[collecting.text(report.nodeid)] = report.longreprtext
        elif report.skipped and isinstance(report.longrepr, tuple):
            path, line, why = report.longrepr
            reason = why.removeprefix("Skipped: ")
            self.failures[collecting.text(report.nodeid)] = f"skipped on this host: {reason}"
            self.skips[collecting.text(report.nodeid)] = (reason, f"{path}:{line}: {why}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        self._stop_at_files = False
        if self.attribution is not None:
            self.attribution.pause()
        if self._pipes is not None:
            self._run_slot(self._settings, *self._pipes)
            return True
        if self._settings["collect"]:
            notes = self.teller.notes(session.config, session.items)
            with open(os.path.join(self._settings["directory"], "notes"), "wb") as notes_file:
                notes_file.write(notes)
            if session.testsfailed and not session.config.option.continue_on_collection_errors:
                return None  # pytest prints the errors and ends with code 2
            if not session.items:
                return True
            manifest = collecting.manifest(session, self.skips, self.deselected, self._settings["test_type"])
            if not manifest["tests"]:
                return True
            if may_stay(session.config):
                manifest["inputs"] = inputs.stamps(self._settings["root"])
            path = os.path.join(self._settings["directory"], "manifest.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(manifest, file)
            self._zygote.send(collected=path)
        self._zygote.serve(self._run_slot, session.config.pluginmanager.hasplugin("timeout"))
        return True

    def _run_slot(self, settings: dict[str, Any], directory: str, number: int, tokens: int, frames: int) -> None:
        from _mesh_pytest_side import ordering, slot

        ordering.take_over()
        assert self._session is not None
        slot.Slot(self, self._session, settings, directory, number, tokens, frames).run()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)
        if report.sections and report.when != "teardown" and self.keep_early is not None:
            self.keep_early(self.reports)

    def pytest_warning_recorded(self, warning_message: Any) -> None:
        if len(self.warnings) < wire.WARNINGS_MAX:
            self.warnings.append(reporting.warning(warning_message, self._settings["root"]))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        """What a test function does to the process does not outlive it; what a fixture does is the fixture's affair."""
        before = surroundings.Surroundings(self._settings["root"])
        try:
            return (yield)
        finally:
            before.restore()

    @pytest.fixture
    def mesh_artifacts(self) -> Any:
        """A directory whose content is kept with the test's record."""
        import pathlib

        self.artifacts_used = True
        path = pathlib.Path(self.artifacts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def needs_whole(config: pytest.Config) -> bool:
    """Whether the list of tests as a whole matters (see the module's text)."""
    if any("::" in argument for argument in config.args):
        return True
    if any(config.getoption(name, False) for name in BY_LAST_RUN):
        return True
    return modifies_whole(config)


def modifies_whole(config: pytest.Config) -> bool:
    """Whether a plugin outside pytest, not known to look at one item at a time, modifies the list of tests."""
    for hook in config.hook.pytest_collection_modifyitems.get_hookimpls():
        module = module_of(hook.plugin)
        if module.split(".")[0] in ("_pytest", *BY_ITEM) or hook.plugin in config.pluginmanager._conftest_plugins:
            continue
        if not module.endswith("conftest"):
            return True
    return False


def may_stay(config: pytest.Config) -> bool:
    """Whether this process may serve later runs: not if a session's beginning or end is more than pytest's own affair
    (say, a service that a conftest starts), if the list of tests may differ from run to run, or if it is big."""
    if any(config.getoption(name, False) for name in BY_LAST_RUN) or modifies_whole(config):
        return False
    for name in ("pytest_sessionstart", "pytest_sessionfinish", "pytest_unconfigure"):
        for hook in getattr(config.hook, name).get_hookimpls():
            if module_of(hook.plugin).split(".")[0] not in ("_pytest", *BY_ITEM, *SESSION_KNOWN):
                return False
    return resident_bytes() <= STAY_BYTES_MAX


def resident_bytes() -> int:
    """What this process has in memory; where only its peak is known, that (on Linux it counts the node's own, too, from
    which this process was forked)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as numbers:
            return int(numbers.read().split()[1]) * resource.getpagesize()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def module_of(plugin: Any) -> str:
    return str(getattr(plugin, "__name__", type(plugin).__module__))


def arguments(settings: dict[str, Any]) -> list[str]:
    """pytest's, with the root fixed and the cache kept out of the tree."""
    root, given = settings["root"], settings["arguments"]
    added = [f"--rootdir={root}"]
    has_cache = "no:cacheprovider" not in f"{given} {os.environ.get('PYTEST_ADDOPTS')}"  # else it is no option at all
    if has_cache and not any(text in ("--lf", "--last-failed", "--ff", "--failed-first") for text in given):
        added += ["-o", "cache_dir=" + os.path.join(settings["directory"], "cache")]
    if not settings["configured"]:
        added += ["-c", os.path.join(settings["directory"], "pytest.ini"), f"--confcutdir={root}"]
    return [*added, *given]


def run_pytest(settings: dict[str, Any], zygote: Any, pipes: tuple[str, int, int, int] | None = None) -> int:
    """pytest's exit code."""
    if pipes is not None:
        processes.redirect(pipes[0])
    coverages.in_folder(pipes[0] if pipes is not None else settings["directory"])
    plugin = MeshPlugin(settings, zygote, pipes)
    plugins: list[Any] = [plugin, plugin.teller]
    if settings["reads"]:
        plugin.attribution = attributing.Attribution(settings["root"], settings["directory"])
        plugins.append(plugin.attribution)
        plugin.attribution.start()
    return int(pytest.main(arguments(settings), plugins=plugins))
