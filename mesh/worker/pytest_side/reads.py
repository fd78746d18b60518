"""What this process reads of the bundle, and on whose behalf: for verdicts that later runs may reuse.

An audit hook hears of files opened, directories listed, modules looked for, processes started and sockets used; and
`import` statements are heard even where the module is loaded already. What is read while a module of the bundle is
imported belongs to that module (`graph`), and so to all who import it, at whatever time; anything else to the `sink` of
the moment: a test, a fixture, the session. Words are those of `protocols/inputs.py`.

A function that keeps what it read (`functools.cache`, a global) reads for its module, too: the next test that calls it
reads nothing. What is not heard: `os.stat` and its kin, reads by C libraries, variables of the environment, and what an
earlier test left in some object's attributes.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import opcode
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

ENTRY_CHARACTERS_MAX = 4096
EXAMPLE_CHARACTERS_MAX = 200

UNSEEN = ("network:", "files:", "processes:")

SYSTEM_FILES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"),
    *("/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/os-release", "/usr/lib/os-release"),
)
SYSTEM_FOLDERS = ("/proc", "/sys", "/usr/share/zoneinfo", "/usr/share/locale", "/usr/lib/locale", "/usr/share/mime")
"""What the host is, rather than what somebody keeps there: reads of these count as reads of the environment."""

NETWORK = (
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"),
    *("socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"),
)
PROCESSES = (
    *("subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.exec", "os.fork", "os.forkpty"),
    "pty.spawn",
)
CHANGES = (
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
    "os.utime",
)
UNHEARD_PROCESSES = ("multiprocessing.popen_spawn_posix", "multiprocessing.popen_forkserver")
"""Modules that start processes without a word: who imports one may do so at any time."""

MESH = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The runner's own package."""

_BOOTSTRAP = "importlib._bootstrap"
_STORE_GLOBAL, _STORE_SUBSCR = opcode.opmap["STORE_GLOBAL"], opcode.opmap["STORE_SUBSCR"]


class Recorder:
    """`own`: folders whose content this process made."""

    def __init__(self, root: str, own: Iterable[str]) -> None:
        self.root = os.path.realpath(root)
        self._roots = tuple({self.root + os.sep, os.path.abspath(root) + os.sep})
        self._own = tuple(os.path.realpath(path) + os.sep for path in own)
        self._made: set[str] = set()
        self._allowed = _environment_folders()
        self.listening = False
        self.session: set[str] = set()
        self.graph: dict[str, set[str]] = {}
        """Module of the bundle -> what its import read, and what functions of it imported or kept."""
        self.version = 0
        """Grows with `session` and `graph`."""
        self._sink, self._is_shared = self.session, True
        self._seen: set[Any] = set()
        """Imports that the sink has."""
        self._files_of: dict[str, str | None] = {}
        """File name of code -> path in the bundle."""
        self._keeps: dict[CodeType, bool] = {}
        self._handlers: dict[str, Callable[..., None]] = {
            "open": self._opened,
            "os.listdir": self._listed,
            "os.scandir": self._listed,
            "import": self._sought,
            "sqlite3.connect": lambda path: self._opened(path, None, os.O_RDWR),
            "tempfile.mkdtemp": self._made_folder,
            "tempfile.mkstemp": lambda path: self._made.add(os.path.realpath(os.fsdecode(path))),
            **{name: functools.partial(self._unseen, "network", name) for name in NETWORK},
            **{name: functools.partial(self._unseen, "processes", name) for name in PROCESSES},
            **{name: functools.partial(self._changed, name) for name in CHANGES},
        }

    def start(self) -> None:
        """Listen from now on; hooks of this kind stay for the life of the process."""
        sys.addaudithook(self._hear)
        builtins.__import__ = _heard_import(self, builtins.__import__)
        importlib.import_module = _heard_import_module(self, importlib.import_module)
        self.listening = True

    @contextlib.contextmanager
    def reading_for(self, sink: set[str], is_shared: bool = False) -> Iterator[None]:
        """`is_shared`: the sink is a part of `session` or `graph`."""
        before = self._sink, self._is_shared, self.listening
        self._sink, self._is_shared, self.listening = sink, is_shared, True
        self._seen.clear()
        try:
            yield
        finally:
            self._sink, self._is_shared, self.listening = before
            self._seen.clear()

    def owns(self, folder: str) -> None:
        self._own += (os.path.realpath(folder) + os.sep,)

    def of_module(self, path: str) -> set[str]:
        """What a module's import read so far."""
        return self.graph.setdefault(path, set())

    def inside(self, path: str) -> str | None:
        """A path relative to the bundle's root; None if it lies outside."""
        real = os.path.realpath(path)
        return real[len(self.root) + 1 :] if real.startswith(self.root + os.sep) else None

    def file_of(self, name: str) -> str | None:
        """Where a loaded module lies in the bundle, if it does."""
        try:
            file = vars(sys.modules[name]).get("__file__")
        except (KeyError, TypeError):
            return None
        return self._of_code(file) if isinstance(file, str) else None

    def module_inputs(self, name: str) -> set[str]:
        """A loaded module and the packages that it lies in; of a module outside its first name alone."""
        found = set()
        parts = name.split(".")
        for size in range(1, len(parts) + 1):
            file = self.file_of(".".join(parts[:size]))
            if file is not None:
                found.add(_entry("file", file))
        if parts[0] != "conftest":
            found.add(_entry("name", parts[0]))
        return found

    def packages_of(self, name: str) -> set[str]:
        """What an import of a module takes in beside its own file; two conftests may have one name."""
        above = name.rpartition(".")[0]
        if above:
            return self.module_inputs(above)
        return {_entry("name", name)} if name != "conftest" else set()

    def closure(self, entries: Iterable[str]) -> set[str]:
        """The entries with all that the modules among them read."""
        found = set(entries)
        todo = [entry for entry in found if entry.startswith("file:")]
        while todo:
            for entry in self.graph.get(todo.pop()[5:], ()):
                if entry not in found:
                    found.add(entry)
                    if entry.startswith("file:"):
                        todo.append(entry)
        return found

    # events

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listening and event in self._handlers:
            try:
                self._handlers[event](*arguments)
            except Exception as error:  # never the test's affair; but its inputs are not known then
                self._add(self._sink, f"files:{event}: {type(error).__name__}: {error}"[:EXAMPLE_CHARACTERS_MAX])

    def _opened(self, path: Any, mode: Any, flags: int) -> None:
        if isinstance(path, int):
            return
        absolute = os.path.abspath(os.fsdecode(path))
        if not absolute.startswith(self._roots) and (absolute + os.sep).startswith(self._allowed):
            return
        access = flags & os.O_ACCMODE
        made = os.O_CREAT | os.O_EXCL
        fresh = access == os.O_WRONLY or bool(flags & os.O_TRUNC) or flags & made == made
        inside = self.inside(absolute)
        if inside is None:
            self._opened_outside(absolute, fresh)
            return
        if "__pycache__" in inside.split("/"):
            if not fresh:
                folder, _, name = inside.rpartition("/")
                source = os.path.join(os.path.dirname(folder), name.partition(".")[0] + ".py")
                self._read({_entry("file", source)})
            return
        entries = set()
        if fresh or access == os.O_RDWR:
            entries.add(_entry("files", f"writes {inside}"))
        if not fresh and not os.path.isdir(absolute):
            entries.add(_entry("file" if os.path.lexists(absolute) else "none", inside))
            entries |= self._links(absolute)
        self._read(entries)

    def _links(self, absolute: str) -> set[str]:
        """Links of the bundle on the way to a file."""
        found = set()
        if os.path.realpath(absolute) != absolute:
            while len(absolute) > len(self.root):
                if os.path.islink(absolute):
                    inside = self.inside(os.path.dirname(absolute))
                    folder = "" if inside is None else inside + "/"
                    found.add(_entry("file", folder + os.path.basename(absolute)))
                absolute = os.path.dirname(absolute)
        return found

    def _opened_outside(self, absolute: str, fresh: bool) -> None:
        real = os.path.realpath(absolute)
        if (real + os.sep).startswith((*self._own, *self._allowed)) or real in SYSTEM_FILES:
            return
        if fresh:
            self._made.add(real)
        elif real not in self._made and self._whose() != "environment":
            self._read({_entry("files", real)})

    def _made_folder(self, path: Any) -> None:
        self._own += (os.path.realpath(os.fsdecode(path)) + os.sep,)

    def _listed(self, path: Any = None) -> None:
        caller = sys._getframe(2).f_code.co_filename
        if _BOOTSTRAP in caller or f"{os.sep}_pytest{os.sep}" in caller:
            return
        if self._sink is self.session and self._whose() != "bundle":
            return  # pytest's own search for conftests
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        absolute = os.path.abspath(os.fsdecode(path or "."))
        inside = "" if os.path.realpath(absolute) == self.root else self.inside(absolute)
        is_metadata = f"{os.sep}importlib{os.sep}metadata{os.sep}" in caller
        if inside is None:
            real = os.path.realpath(absolute) + os.sep
            known = is_metadata or real.startswith((*self._own, *self._allowed))
            if not known and self._whose() != "environment":
                self._read({_entry("files", absolute)})
        elif is_metadata:
            self._read({"meta:"})
        elif "__pycache__" not in inside.split("/"):
            self._read({_entry("list" if os.path.isdir(absolute) else "none", inside)} | self._links(absolute))

    def _whose(self) -> str:
        """Who does what is heard: the "bundle"; a module of the "environment" that is being imported, so
        that what it does is a part of it, whoever imports it; or plugins, or pytest itself (empty)."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            code, caller = frame.f_code, frame.f_back
            if self._of_frame(frame) is not None:
                return "bundle"
            is_import = caller is not None and _BOOTSTRAP in caller.f_code.co_filename
            if is_import and code.co_name == "<module>" and code.co_filename.startswith(self._allowed):
                return "environment"
            frame = caller
        return ""

    def _sought(self, name: str, *_: Any) -> None:
        """A module that is not loaded yet."""
        if name in UNHEARD_PROCESSES:
            self._add(self.session, _entry("processes", name))
        if "." not in name and name != "conftest":
            self._read({_entry("name", name)})

    def _unseen(self, kind: str, event: str, *arguments: Any) -> None:
        whose = self._whose()
        if (self._sink is self.session and not whose) or (kind == "processes" and whose == "environment"):
            return  # a plugin at its start; a package that looks for a library, say, while it is imported
        what = arguments[1] if event in ("socket.connect", "socket.bind", "socket.sendto") else arguments[:1]
        what = what[0] if isinstance(what, tuple) and what else what
        self._read({_entry(kind, f"{event} {what!s}"[:EXAMPLE_CHARACTERS_MAX])})

    def _changed(self, event: str, *arguments: Any) -> None:
        base = arguments[-1] if isinstance(arguments[-1], int) and arguments[-1] >= 0 else None
        around = "" if base is None or event in ("os.chown", "os.truncate") else os.readlink(f"/proc/self/fd/{base}")
        for path in arguments[1 if event in ("os.link", "os.symlink") else 0 : 2]:
            if isinstance(path, (str, bytes, os.PathLike)):
                folder, name = os.path.split(os.path.abspath(os.path.join(around, os.fsdecode(path))))
                inside = self.inside(os.path.join(os.path.realpath(folder), name))
                if inside is not None and "__pycache__" not in inside.split("/"):
                    self._read({_entry("files", f"changes {inside}")})

    # on whose behalf

    def imported(self, name: str, globals: Any, fromlist: Any, level: int, found: bool = True) -> None:
        """An `import` statement, or its like, ran in the code that has these globals."""
        names = tuple(fromlist or ())
        importer = globals.get("__file__") if globals else None
        key = (importer, name, names, level, found)
        if key in self._seen:
            return
        absolute = name
        if level > 0:
            package = str(globals.get("__package__") or globals.get("__name__", "").rpartition(".")[0])
            above = package.rsplit(".", level - 1)[0]
            absolute = f"{above}.{name}" if name else above
        entries = self.module_inputs(absolute)
        if not found:
            entries.add(_entry("name", absolute.rpartition(".")[2]))
        if any(entry.startswith("file:") for entry in entries):
            for inner in names:
                if isinstance(inner, str) and f"{absolute}.{inner}" in sys.modules:
                    entries |= self.module_inputs(f"{absolute}.{inner}")
        self._read(entries, self._of_code(importer) if isinstance(importer, str) else None)
        self._seen.add(key)

    def _read(self, entries: set[str], importer: str | None = None) -> None:
        """Note entries for the module that is being imported, else for the sink; and for the modules of functions that
        keep what they read."""
        if importer is not None:
            for entry in entries:
                self._add(self.of_module(importer), entry)
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            module = self._of_frame(frame)
            if module is not None:
                if code.co_name == "<module>":
                    for entry in entries:
                        self._add(self.of_module(module), entry)
                    return
                if module != importer and self._is_keeping(code, frame.f_globals):
                    for entry in entries:
                        self._add(self.of_module(module), entry)
            frame = frame.f_back
        for entry in entries:
            self._add(self._sink, entry)

    def _add(self, sink: set[str], entry: str) -> None:
        if entry in sink:
            return
        if entry.startswith(UNSEEN):  # one example of each kind is enough
            kind = entry.partition(":")[0] + ":"
            if any(other.startswith(kind) for other in sink):
                return
        sink.add(entry)
        if self._is_shared or sink is not self._sink:
            self.version += 1

    def _of_frame(self, frame: FrameType) -> str | None:
        """By its module: what pytest compiled names the place where the file lay then, which may have been another."""
        name = frame.f_globals.get("__file__")
        return self._of_code(name if isinstance(name, str) else frame.f_code.co_filename)

    def _of_code(self, name: str) -> str | None:
        if name not in self._files_of:
            self._files_of[name] = self.inside(name) if name.startswith(os.sep) else None
        return self._files_of[name]

    def _is_keeping(self, code: CodeType, globals: dict[str, Any]) -> bool:
        known = self._keeps.get(code)
        if known is None:
            known = self._keeps[code] = keeps_results(code, globals)
        return known


def keeps_results(code: CodeType, globals: dict[str, Any]) -> bool:
    """Whether a function may keep what it found for its next call: in a cache, or a global."""
    operations = code.co_code[::2]
    if _STORE_GLOBAL in operations:
        return True
    if _STORE_SUBSCR in operations and any(isinstance(globals.get(name), (dict, list)) for name in code.co_names):
        return True
    values = list(globals.values())
    for value in list(values):
        if isinstance(value, type):
            values += vars(value).values()
    for value in values:
        if isinstance(value, (functools._lru_cache_wrapper, functools.cached_property)):
            inner = getattr(value, "__wrapped__", None) or getattr(value, "func", None)
            if getattr(inner, "__code__", None) is code:
                return True
    return False


def _entry(kind: str, what: str) -> str:
    """An input in words, valid UTF-8."""
    return f"{kind}:{what[:ENTRY_CHARACTERS_MAX]}".encode("utf-8", "backslashreplace").decode()


def _environment_folders() -> tuple[str, ...]:
    """Where the interpreter's and its packages' files lie. Not all of `sys.path`: what an editable installation or
    PYTHONPATH adds to it may change without a new environment."""
    names = ("stdlib", "platstdlib", "purelib", "platlib", "include", "scripts", "data")
    bases = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    found = {*(sysconfig.get_path(name) for name in names[:-1])}
    found |= {sysconfig.get_path(name, vars=bases | {"installed_base": sys.base_prefix}) for name in names[:-1]}
    found |= {*getattr(site, "getsitepackages", list)(), MESH}
    found |= {os.path.join(prefix, name) for prefix in (sys.prefix, sys.base_prefix) for name in ("share", "etc")}
    found |= {os.path.join(sys.prefix, "pyvenv.cfg"), *SYSTEM_FOLDERS}
    found |= {path for path in sys.path if path.startswith(sys.base_prefix) and path.endswith(".zip")}
    paths = {path for path in found if path}
    return tuple(sorted({path.rstrip(os.sep) + os.sep for path in paths | {os.path.realpath(path) for path in paths}}))


_SOURCE = """
def heard_import(recorder, real):
    def __import__(name, globals=None, locals=None, fromlist=(), level=0):
        if not recorder.listening:
            return real(name, globals, locals, fromlist, level)
        try:
            found = real(name, globals, locals, fromlist, level)
        except ImportError:
            recorder.imported(name, globals, fromlist, level, False)
            raise
        recorder.imported(name, globals, fromlist, level)
        return found
    return __import__

def heard_import_module(recorder, real, frame):
    def import_module(name, package=None):
        if not recorder.listening:
            return real(name, package)
        level = len(name) - len(name.lstrip("."))
        around = dict(frame(1).f_globals)
        if package:
            around["__package__"] = package
        try:
            found = real(name, package)
        except ImportError:
            recorder.imported(name[level:], around, (), level, False)
            raise
        recorder.imported(name[level:], around, (), level)
        return found
    return import_module
"""
_made: dict[str, Any] = {}
exec(compile(_SOURCE, "<mesh importlib._bootstrap>", "exec"), _made)
"""Compiled under a name that `warnings` passes over, as it does over the import system's own frames: a warning in a
module is to be told of whoever imports that."""


def _heard_import(recorder: Recorder, real: Any) -> Any:
    return _made["heard_import"](recorder, real)


def _heard_import_module(recorder: Recorder, real: Any) -> Any:
    return functools.wraps(real)(_made["heard_import_module"](recorder, real, sys._getframe))
