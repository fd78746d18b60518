"""The architecture, checked: layers and purity by walking the imports, and the limits that keep files readable."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.scheduler.environments import OLDEST

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 450
LONGER_FILES = {"mesh.worker.runner": 560}
"""Files over the limit, and what they may not outgrow: shorten this list, don't raise its numbers."""
FUNCTION_LINES_MAX = 80

WIRE, CORE, DECIDER, VIEW, PORTS, SERVICE, COMPOSITION, ENTRY = range(8)
"""A module imports from layers below its own, and within its own layer from its own group."""

LAYERS = {
    "protocols": (WIRE, "protocols"),
    "mesh.raft": (CORE, "raft"),
    "mesh.state": (CORE, "state"),
    "mesh.content.unixfs": (CORE, "unixfs"),
    "mesh.anomalies": (DECIDER, "anomalies"),
    "mesh.measures": (CORE, "measures"),
    "mesh.autopilot": (DECIDER, "autopilot"),
    "mesh.reporters": (VIEW, "views"),
    "mesh.reporters.coverage": (SERVICE, "reporters"),
    "mesh.scheduler": (DECIDER, "scheduler"),
    "mesh.views": (VIEW, "views"),
    "mesh.worker.machine": (DECIDER, "machine"),
    "mesh": (PORTS, "ports"),
    "mesh.entries": (PORTS, "ports"),
    "mesh.hints": (PORTS, "ports"),
    "mesh.histories": (PORTS, "ports"),
    "mesh.manifests": (PORTS, "ports"),
    "mesh.options": (PORTS, "ports"),
    "mesh.paced": (PORTS, "ports"),
    "mesh.ports": (PORTS, "ports"),
    "mesh.run_views": (PORTS, "ports"),
    "mesh.together": (PORTS, "ports"),
    "mesh.alerting": (SERVICE, "alerting"),
    "mesh.api": (SERVICE, "api"),
    "mesh.archived": (SERVICE, "backend"),
    "mesh.backend": (SERVICE, "backend"),
    "mesh.birth": (SERVICE, "membership"),
    "mesh.consensus": (SERVICE, "consensus"),
    "mesh.content": (SERVICE, "content"),
    "mesh.coordinator": (SERVICE, "coordinator"),
    "mesh.dashboard": (SERVICE, "dashboard"),
    "mesh.details": (SERVICE, "backend"),
    "mesh.disk": (SERVICE, "disk"),
    "mesh.feeds": (SERVICE, "backend"),
    "mesh.hardware": (SERVICE, "hardware"),
    "mesh.listening": (SERVICE, "backend"),
    "mesh.live": (SERVICE, "backend"),
    "mesh.loads": (SERVICE, "backend"),
    "mesh.log_home": (SERVICE, "consensus"),
    "mesh.membership": (SERVICE, "membership"),
    "mesh.monitoring": (SERVICE, "monitoring"),
    "mesh.net": (SERVICE, "net"),
    "mesh.node_alerts": (SERVICE, "backend"),
    "mesh.past": (SERVICE, "past"),
    "mesh.past_looker": (SERVICE, "backend"),
    "mesh.pins": (SERVICE, "backend"),
    "mesh.presence": (SERVICE, "membership"),
    "mesh.proposals": (SERVICE, "consensus"),
    "mesh.telling": (SERVICE, "backend"),
    "mesh.views.drawing": (SERVICE, "drawing"),
    "mesh.views.gantt_figure": (SERVICE, "drawing"),
    "mesh.views.heat_figure": (SERVICE, "drawing"),
    "mesh.views.overview_figure": (SERVICE, "drawing"),
    "mesh.views.render": (SERVICE, "drawing"),
    "mesh.views.topology_figure": (SERVICE, "drawing"),
    "mesh.worker": (SERVICE, "worker"),
    "mesh.duties": (COMPOSITION, "node"),
    "mesh.joining": (COMPOSITION, "node"),
    "mesh.node": (COMPOSITION, "node"),
    "mesh.__main__": (ENTRY, "entry"),
    "mesh.cli": (ENTRY, "entry"),
    "mesh.pytest_options": (ENTRY, "entry"),
    "mesh.pytest_plugin": (ENTRY, "entry"),
    "mesh.pytest_reports": (ENTRY, "entry"),
    "mesh.pytest_session": (ENTRY, "entry"),
    "node": (ENTRY, "entry"),
    "run": (ENTRY, "entry"),
}

TOP_MODULES = {"mesh", "mesh.__main__"}
"""Entries of LAYERS that stand for themselves alone, not for what is inside."""

PURE_MAY_USE = {"cbor2"}
"""Beside the standard library."""

IMPURE = {
    "asyncio", "concurrent", "ctypes", "fcntl", "http", "multiprocessing", "os", "secrets", "select", "shutil",
    "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip

ASYNC = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "__import__"}

INSIDE_PYTEST = "mesh.worker.pytest_side"
"""Runs in the environment of the suite under test, where nothing of ours is installed, under a name of its own."""
INSIDE_PYTEST_MAY_USE = {*sys.stdlib_module_names, "pytest", "_pytest", "pluggy", "_mesh_pytest_side"}


def sources() -> list[Path]:
    programs = [ROOT / "node.py", ROOT / "run.py"]
    return sorted([*programs, *(ROOT / "mesh").rglob("*.py"), *(ROOT / "protocols").rglob("*.py")])


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place_of(module: str) -> tuple[int, str] | None:
    """(layer, group) of a module: that of the longest name in LAYERS that it lies in."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        name = ".".join(parts[:size])
        if name in LAYERS and (name == module or name not in TOP_MODULES):
            return LAYERS[name]
    return None


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


MODULES = {name_of(path): path for path in sources()}
PURE = sorted(name for name in MODULES if (place_of(name) or (ENTRY, ""))[0] <= VIEW)


def imports(module: str) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything that a module imports, wherever in it; ours down to the module."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else base


def ours(name: str) -> bool:
    return name.partition(".")[0] in ("mesh", "protocols", "node", "run")


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    place = place_of(module)
    assert place is not None, f"say in LAYERS where {module} belongs"
    layer, group = place
    for line, name in imports(module):
        if not ours(name):
            continue
        target = place_of(name)
        assert target is not None, f"{module}:{line} imports {name}, which has no layer"
        allowed = target[0] < layer or target == (layer, group)
        assert allowed, f"{module}:{line} imports {name}: from layer {layer} ({group}) to {target[0]} ({target[1]})"


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_are_pure(module: str) -> None:
    for line, name in imports(module):
        top = name.partition(".")[0]
        assert top not in IMPURE, f"{module}:{line} imports {name}"
        known = ours(name) or top in sys.stdlib_module_names or top in PURE_MAY_USE
        assert known, f"{module}:{line} imports {name}, which is not the standard library"
    for node in ast.walk(tree_of(MODULES[module])):
        where = f"{module}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ASYNC), f"{where} is async"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{where} calls {node.func.id}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr == "Random", f"{where} uses the module's own random.{node.attr}; randomness is injected"
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            assert owner not in ("datetime", "date"), f"{where} asks what time it is"
        if isinstance(node, ast.For):
            assert not unordered(node.iter), f"{where} iterates a set in no order"


def unordered(expression: ast.expr) -> bool:
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name):
        return expression.func.id in ("set", "frozenset")
    return isinstance(expression, ast.Set | ast.SetComp)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(INSIDE_PYTEST)])
def test_what_runs_inside_pytest_needs_nothing_of_ours(module: str) -> None:
    for line, name in imports(module):
        known = name.partition(".")[0] in INSIDE_PYTEST_MAY_USE or name.startswith(INSIDE_PYTEST)
        assert known, f"{module}:{line} imports {name}"


OLD_PYTHON = [name for name in MODULES if name.startswith(INSIDE_PYTEST) or name == "mesh.worker.interpreter"]
"""They run under a suite's interpreter, which may be as old as `mesh.scheduler.environments.OLDEST`."""


@pytest.mark.parametrize("module", OLD_PYTHON)
def test_what_runs_under_older_pythons_is_in_their_grammar(module: str) -> None:
    """And evaluates no annotation, since `X | None` is newer."""
    source = MODULES[module].read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=OLDEST)
    futures = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    annotated = any(isinstance(node, ast.FunctionDef | ast.AnnAssign) for node in ast.walk(tree))
    assert "__future__" in futures or not annotated, f"{module} evaluates its annotations"
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


@pytest.mark.parametrize("module", MODULES)
def test_modules_open_with_what_they_are(module: str) -> None:
    docstring = ast.get_docstring(tree_of(MODULES[module]))
    assert docstring, f"{module} has no docstring"


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_can_be_read_at_a_sitting(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER_FILES.get(module, FILE_LINES_MAX), f"{module} has {lines} lines"
    for node in ast.walk(tree_of(MODULES[module])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{module}:{node.lineno} {node.name} has {length} lines"


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")
    tests = (path for path in (ROOT / "tests").rglob("*.py"))
    for path in [*sources(), *tests]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            assert not words.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_every_entry_of_the_layers_exists() -> None:
    """`mesh.dashboard` is named by the design and may come later."""
    missing = [name for name in LAYERS if name not in MODULES and not any(m.startswith(f"{name}.") for m in MODULES)]
    assert set(missing) <= {"mesh.dashboard"}


def test_the_checks_see_what_they_should() -> None:
    """A check of the checks, on the modules as they are."""
    assert place_of("mesh.content.unixfs.build") == (CORE, "unixfs")
    assert place_of("mesh.content.store") == (SERVICE, "content")
    assert place_of("mesh.unheard_of") is None
    assert "protocols.codec" in {name for _, name in imports("protocols.commands")}
    assert "mesh.state.ranges" in {name for _, name in imports("mesh.state.apply")}
    assert {"mesh.raft.raft", "mesh.state.apply", "mesh.scheduler.plan", "mesh.worker.machine"} <= set(PURE)
    assert "mesh.views.render" not in PURE
    assert unordered(ast.parse("{1, 2}", mode="eval").body)
    assert not unordered(ast.parse("sorted({1, 2})", mode="eval").body)
