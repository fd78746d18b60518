"""Fixtures of the commands' tests. The fake node is the one that tests/api tests the API with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh.cli.main import main
from tests.cli.served_node import Ended, Node


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which is the default one too."""
    made = tmp_path / "state" / "home"
    made.mkdir(parents=True)
    monkeypatch.setenv("MESH_HOME", str(made))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return made


@pytest.fixture
def node(home: Path) -> Iterator[Node]:
    made = Node(home)
    yield made
    made.stop()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project, which is the current directory."""
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (root / "tests" / "test_a.py").write_text("def test_good(): pass\n")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def mesh(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run `mesh …` in this process."""

    def run(*words: object) -> Ended:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run
