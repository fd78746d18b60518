"""A slot: takes tokens, collects the files that they name, runs the tests, writes frames.

What comes next is looked for only when a test is being torn down, not when it starts (`NextItem`): so a slot holds no
test back while it runs a long one, and the node may still give the next one to another slot. When nothing follows,
everything but the session's fixtures is torn down.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import faulthandler
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from _mesh_pytest_side import capture, collecting, coverages, originals, processes, reporting, sharing, wire
from _pytest.warnings import catch_warnings_for_item

Token = tuple[int, int]


class Quiet:
    """Stands in for the terminal reporter in a slot: others may still ask it things, but it hears of no test."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)


class Nothing(pytest.Item):
    """The item that "follows" when nothing is queued: directly under the session, so that only that stays set up."""

    def runtest(self) -> None:
        raise AssertionError("never run")


class NextItem:
    """The test that follows, found out when someone asks: pytest does when it tears the current one down."""

    def __init__(self, slot: Slot) -> None:
        self.__slot = slot

    def listchain(self) -> list[Any]:
        return self.__slot.next_chain()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__slot.next_item(), name)


class Slot:
    def __init__(
        self,
        plugin: Any,
        session: pytest.Session,
        settings: dict[str, Any],
        directory: str,
        number: int,
        tokens: int,
        frames: int,
    ) -> None:
        self._plugin = plugin
        self._session = session
        self._settings = settings
        self._directory = directory
        self._number = number
        self._tokens = tokens
        self._frames = frames
        self._items_file = os.open(settings["items"], os.O_RDONLY)
        self._items: dict[str, pytest.Item] = {}
        self._collected = set()  # type: set[str]
        self._path = list(sys.path)
        """What imports have made of it; what tests make of it is theirs."""
        self._next: Token | None = None
        self._pending = b""
        """Frames that go out with the next write."""
        self._forked_away = False
        self._bad = 0
        self._attribution = plugin.attribution

    def run(self) -> None:
        """Until it is told to stop. After as many bad tests as the run allows, it takes tokens, but begins no test."""
        settings = self._settings
        self._settle()
        for item in self._session.items:
            self._items[collecting.text(item.nodeid)] = item
        while True:
            token = self._take()
            if token == wire.STOP:
                break
            if token == wire.PAUSE:
                continue
            self._run_test(token)
            if 0 < settings["maxfail"] <= self._bad:
                self._flush()
                while self._take() != wire.STOP:
                    pass
                break
        self._flush()
        self._tear_down()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()

    def _tear_down(self) -> None:
        """End the fixtures that outlive a test. Whatever they raise is told by itself: all verdicts are out."""
        try:
            self._session._setupstate.teardown_exact(None)
        except BaseException as error:
            text = "\n\n".join((reporting.traceback_of(error), *self._capture.escaped()))
            self._pending += wire.pack_json({"ended": wire.clip(text.strip(), wire.ENDING_BYTES_MAX)[0]})
            self._flush()

    def _settle(self) -> None:
        """Make a process of its own of what was forked, or spawned."""
        settings, config = self._settings, self._session.config
        name = f"gw{settings['first'] + self._number}"
        processes.be_nice()
        atexit._clear()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._cut_off)
        processes.redirect(self._directory)
        if self._attribution is not None:
            self._attribution.owns(self._directory)
        self._capture = capture.SlotCapture(config, self._directory)
        self._capture.restart()
        self._capture.escaped()  # what pytest said as this process began (a spawned one) is no test's
        self._plugin.keep_early = self._keep_early
        self._stacks = open(originals.join(self._directory, "stacks"), "wb", buffering=0)  # noqa: SIM115
        if config.pluginmanager.hasplugin("faulthandler"):
            faulthandler.enable(file=self._stacks, all_threads=True)
        os.environ.update(
            PYTEST_XDIST_WORKER=name,
            PYTEST_XDIST_WORKER_COUNT=str(settings["total"]),
            PYTEST_XDIST_TESTRUNUID=settings["uid"],
            MESH_SLOT=str(self._number),
        )
        config.workerinput = {  # type: ignore[attr-defined]
            "workerid": name,
            "workercount": settings["total"],
            "testrunuid": settings["uid"],
            "mainargv": list(sys.argv),
            "meshnode": settings["worker"],
        }
        config.mesh_shared = sharing.Shared(settings["share"], settings["uid"])  # type: ignore[attr-defined]
        factory: Any = getattr(config, "_tmp_path_factory", None)
        if factory is not None:
            factory._basetemp = type(self._session.path)(self._directory, "tmp").resolve()
            factory._basetemp.mkdir(mode=0o700, exist_ok=True)
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            config.pluginmanager.unregister(reporter)
            config.pluginmanager.register(Quiet(reporter), "terminalreporter")
        for plugin_name in ("lfplugin", "nfplugin", "stepwiseplugin"):
            if config.pluginmanager.hasplugin(plugin_name):
                config.pluginmanager.unregister(name=plugin_name)
        random.seed()
        self._coverage = coverages.Coverage(config, f"{settings['worker'][-8:]}-{self._number}-{os.getpid()}")
        self._root_fd = os.open(settings["root"], os.O_RDONLY)
        self._nothing = Nothing.from_parent(self._session, name="nothing")

    def _cut_off(self) -> None:
        """In a child that a test forked: it must never speak for the slot."""
        self._forked_away = True
        for fd in (self._tokens, self._frames):
            with contextlib.suppress(OSError):
                originals.close(fd)

    def _write(self, data: bytes) -> None:
        if self._forked_away:
            originals.exit_now(1)
        view = memoryview(data)
        while view:
            view = view[originals.write(self._frames, view) :]

    def _take(self) -> Token:
        token, self._next = self._peek(), None
        return token

    def _peek(self) -> Token:
        """The next token; waits for it. The node's death is a STOP."""
        if self._next is None:
            if self._forked_away:
                originals.exit_now(1)
            while True:
                try:
                    data = originals.read(self._tokens, wire.TOKEN.size)
                except BlockingIOError:
                    self._flush()
                    originals.select_on([self._tokens], [], [])
                    continue
                self._next = wire.TOKEN.unpack(data) if data else wire.STOP
                break
        return self._next

    def _tell_start(self, key: int, epoch: float) -> None:
        self._pending += wire.STARTED.pack(b"S", key, epoch)
        self._flush()

    def _flush(self) -> None:
        if self._pending:
            data, self._pending = self._pending, b""
            self._write(data)

    def _node_id(self, token: Token) -> str:
        return originals.pread(self._items_file, token[1], token[0]).decode()

    def next_chain(self) -> list[Any]:
        """Nodes that the next test needs, without importing its file."""
        token = self._peek()
        if token == wire.STOP:
            return []
        if token != wire.PAUSE:
            node_id = self._node_id(token)
            if node_id in self._items:
                return self._items[node_id].listchain()
            for collector in self._plugin.files.get(node_id.split("::", 1)[0], ()):
                return list(collector.listchain())
        return self._nothing.listchain()

    def next_item(self) -> pytest.Item:
        token = self._peek()
        if token in (wire.STOP, wire.PAUSE):
            return self._nothing
        return self._find(self._node_id(token)) or self._nothing

    def _find(self, node_id: str) -> pytest.Item | None:
        """The item, its file collected now if it has to be; None if this host has no such test."""
        item = self._items.get(node_id)
        path = node_id.split("::", 1)[0]
        if item is not None or path in self._collected:
            return item
        self._collected.add(path)
        session = self._session
        collectors = self._plugin.files.get(path, ())
        if collectors:
            self._flush()
        for collector in collectors:
            around = contextlib.nullcontext() if self._attribution is None else self._attribution.collecting()
            with around, self._collecting():
                found = list(session.genitems(collector))
                kept = list(found)
                session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=kept)
            session.items.extend(kept)
            # the manifest has selected: what a hook deselects from this part of the list is still there to be run
            for item in (*found, *kept):
                self._items[collecting.text(item.nodeid)] = item
        return self._items.get(node_id)

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[None]:
        """As if no test had run yet: with the path that imports have made, and with pytest's filters of warnings, and
        its record of them, around it."""
        config, left, before = self._session.config, list(sys.path), self._path
        sys.path[:] = before
        catching: Any = contextlib.nullcontext()
        if config.pluginmanager.hasplugin("warnings"):
            catching = catch_warnings_for_item(config=config, ihook=config.hook, when="collect", item=None)
        try:
            with catching:
                yield
        finally:
            self._path = list(sys.path)
            if left != before:
                sys.path[:] = [entry for entry in self._path if entry not in before] + left

    def _run_test(self, token: Token) -> None:
        key, node_id = token[0], self._node_id(token)
        reports = self._plugin.reports
        reports.clear()
        self._plugin.teller.begin()
        began = originals.now()
        try:
            item = self._find(node_id)
        except BaseException as error:
            self._refuse(key, began, node_id, f"{type(error).__name__}: {error}")
            return
        if item is None and self._skipped_whole(key, began, node_id):
            return
        if item is None:
            path = node_id.split("::", 1)[0]
            why = "\n\n".join(
                text for name, text in self._plugin.failures.items() if path.startswith(name.split("::")[0])
            )
            self._refuse(key, began, node_id, why)
            return
        self._plugin.artifacts = artifacts = originals.join(self._directory, "artifacts", str(key))
        self._plugin.artifacts_used = False
        self._capture.dropped = 0
        self._tell_start(key, originals.now())
        with contextlib.nullcontext() if self._attribution is None else self._attribution.of_test() as read:
            broken = self._run_item(item)
        if read is not None and broken is None:
            self._pending += self._attribution.frame(key, item, read)
        last = self._next in (None, wire.PAUSE, wire.STOP)
        self._plugin.artifacts_used |= self._coverage.save(artifacts, last)
        self._report(key, reports, broken, artifacts)
        self._session._shouldstop = self._session._shouldfail = False
        if self._peek_is_elsewhere(node_id):
            originals.fchdir(self._root_fd)

    def _run_item(self, item: pytest.Item) -> BaseException | None:
        """What broke pytest's own protocol, if anything did."""
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=NextItem(self))
        except BaseException as error:  # KeyboardInterrupt, pytest.exit, a plugin's bug: this test's affair alone
            with contextlib.suppress(BaseException):
                self._session._setupstate.teardown_exact(None)
            return error
        return None

    def _peek_is_elsewhere(self, node_id: str) -> bool:
        """Whether the next test that is known by now is in another file."""
        token = self._next
        if token is None or token in (wire.PAUSE, wire.STOP):
            return True
        return self._node_id(token).split("::", 1)[0] != node_id.split("::", 1)[0]

    def _keep_early(self, reports: list[Any]) -> None:
        streams, _ = reporting.sections(reports)
        self._capture.keep_early([wire.clip(streams["stdout"])[0], wire.clip(streams["stderr"])[0]])

    def _report(self, key: int, reports: list[Any], broken: BaseException | None, artifacts: str) -> None:
        out, err = self._capture.escaped()
        self._capture.forget_early()
        left = self._plugin.artifacts_used and originals.isdir(artifacts) and bool(originals.listdir(artifacts))
        told, self._plugin.warnings = self._plugin.warnings, []
        teller = self._plugin.teller
        quiet = not (out or err or left or told) and teller.silent
        if broken is None and quiet and reporting.is_plain(reports):
            self._pending += reporting.plain_frame(key, reports)
            return
        if reports:
            result = reporting.full(key, reports, self._capture.dropped)
        else:
            result = {"key": key, "outcome": "error", "message": "pytest reported nothing for this test"}
        if broken is not None:
            result["outcome"] = "error"
            result["message"] = wire.clip(f"{type(broken).__name__}: {broken}")[0][: wire.MESSAGE_CHARS_MAX]
            result["longrepr"] = wire.clip(
                pytest.ExceptionInfo.from_exception(broken).exconly() + "\n" + result.get("longrepr", "")
            )[0]
        for name, text in (("stdout", out), ("stderr", err)):
            if text:
                result[name], lost = wire.clip(result.get(name, "") + text)
                result["dropped"] = result.get("dropped", 0) + lost
        if left:
            result["artifacts"] = artifacts
        if told:
            result["warnings"] = told
        self._bad += result["outcome"] in ("failed", "error")
        if broken is None and not (out or err):
            result["reports"] = base64.b64encode(teller.told(self._session.config)).decode()
        self._pending += wire.pack_json(result)
        if len(self._pending) > wire.OUTPUT_BYTES_MAX:
            self._flush()

    def _skipped_whole(self, key: int, began: float, node_id: str) -> bool:
        """Report a file that skips itself as a whole; whether it does."""
        if node_id not in self._plugin.skips:
            return False
        reason, where = self._plugin.skips[node_id]
        message = wire.clip(reason)[0][: wire.MESSAGE_CHARS_MAX]
        self._pass_over(key, began, {"outcome": "skipped", "message": message, "longrepr": wire.clip(where)[0]})
        return True

    def _refuse(self, key: int, began: float, node_id: str, why: str) -> None:
        message = f"not found in collection on this host: {node_id}"
        self._pass_over(key, began, {"outcome": "error", "message": message, "longrepr": wire.clip(why)[0]})
        self._flush()

    def _pass_over(self, key: int, began: float, result: dict[str, Any]) -> None:
        """Report what is not run. The test before it left set up what both were to share: no other may find that.
        What its teardown raises, whatever it is, is this one's verdict: the one before has been reported."""
        if self._session._setupstate.stack:
            self._tell_start(key, began)
            try:
                self._session._setupstate.teardown_exact(NextItem(self))  # type: ignore[arg-type]
            except BaseException as error:
                message = f"failed on teardown with {type(error).__name__}: {error}"
                result |= {"outcome": "error", "message": wire.clip(message)[0][: wire.MESSAGE_CHARS_MAX]}
        self._pending += wire.pack_json({"key": key, "started": began, **result})
