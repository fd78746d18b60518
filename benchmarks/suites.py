"""The suites of `make bench-runner`: two made ones, and real ones from the package index, unpacked into a cache.

A real suite is run in place, as its source archive (or its wheel, where the tests lie in the package) has it;
`pythonpath` puts its package before an installed one, in the same way for every way of running it.
"""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

TRIVIAL_TESTS = 10_000
TRIVIAL = "import pytest\n\n\n@pytest.mark.parametrize('n', range({}))\ndef test_n(n):\n    assert n >= 0\n"
SKEWED_MODULES, SKEWED_TESTS, SKEWED_SECONDS, SKEWED_LONGEST = 20, 20, 0.06, 20.0


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    requirement: str = ""
    """What to download; empty for a made one."""
    wheel: bool = False
    arguments: tuple[str, ...] = ()
    bound: float = 0.0
    """Seconds that two slots need at least, start-up not counted; 0: not known beforehand."""

    plugins: tuple[str, ...] = ()
    """Of those that the benchmark's environment has for some suite, the ones that this one uses."""

    @property
    def options(self) -> tuple[str, ...]:
        """pytest's arguments, the same for every way of running it."""
        unused = [name for name in ("asyncio", "time_machine") if name not in self.plugins]
        return (*(word for name in unused for word in ("-p", f"no:{name}")), *self.arguments)

    def root(self, cache: Path) -> Path:
        """Its directory, made or fetched if it is not there yet."""
        folder = cache / (self.requirement.replace("==", "-") or self.name)
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            _fetch(self, folder) if self.requirement else _make(self.name, folder)
        return folder


SUITES = (
    Suite("trivial"),
    Suite(
        "skewed",
        bound=max((SKEWED_MODULES * SKEWED_TESTS * SKEWED_SECONDS + SKEWED_LONGEST) / 2, SKEWED_LONGEST),
    ),
    Suite("click", "click==8.5.1", arguments=("-o", "pythonpath=src")),
    Suite("structlog", "structlog==26.1.0", arguments=("-o", "pythonpath=src"), plugins=("asyncio", "time_machine")),
    Suite("werkzeug", "werkzeug==3.1.9", arguments=("-o", "pythonpath=src", "-m", "not dev_server")),
    Suite("packaging", "packaging==26.3", arguments=("-o", "pythonpath=src")),
    Suite("networkx", "networkx==3.6.1", wheel=True, arguments=("networkx",)),
    Suite("mpmath", "mpmath==1.3.0", wheel=True, arguments=("mpmath",)),
)
"""Those whose time is measured."""

TRIO = Suite(
    "trio",
    "trio==0.35.0",
    wheel=True,
    arguments=("-p", "trio._tests.pytest_plugin", "trio", "--skip-optional-imports"),
)
SHOWN = (*SUITES, TRIO)
"""Those whose outcomes are compared with serial pytest's."""


def _fetch(suite: Suite, folder: Path) -> None:
    archives = folder.with_name(folder.name + ".download")
    kind = "--only-binary" if suite.wheel else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, kind, ":all:", "--dest", str(archives), suite.requirement], check=True)
    archive = next(archives.iterdir())
    partial = folder.with_name(folder.name + ".partial")
    if suite.wheel:
        zipfile.ZipFile(archive).extractall(partial)
        (partial / "pytest.ini").write_text("[pytest]\n")
        partial.rename(folder)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        next(partial.iterdir()).rename(folder)


def _make(name: str, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir()
    (partial / "pytest.ini").write_text("[pytest]\n")
    if name == "trivial":
        (partial / "test_trivial.py").write_text(TRIVIAL.format(TRIVIAL_TESTS))
    else:
        text = "import time\n\nimport pytest\n\n\n@pytest.mark.parametrize('n', range({}))\n"
        text += "def test_n(n):\n    time.sleep({})\n"
        for module in range(SKEWED_MODULES):
            (partial / f"test_a{module:02}.py").write_text(text.format(SKEWED_TESTS, SKEWED_SECONDS))
        (partial / "test_z.py").write_text(text.format(1, SKEWED_LONGEST))
    partial.rename(folder)
