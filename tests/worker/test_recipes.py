"""What an environment is made from: which command of uv, and what makes it another environment."""

from pathlib import Path

import pytest
from runner_harness import write

from mesh.worker.recipes import Recipe, recipe_of
from protocols.errors import UsageError

PROJECT = '[project]\nname = "demo"\nversion = "1"\n'
BUILT = '[build-system]\nrequires = ["setuptools"]\n'
GROUPS = '[dependency-groups]\ndev = ["pytest"]\ndocs = ["sphinx"]\n'


def recipe(folder: Path, pyproject: str = "", **files: str) -> Recipe:
    named = {name.replace("_", "."): text for name, text in files.items()}
    return recipe_of(write(folder, {**({"pyproject.toml": pyproject} if pyproject else {}), **named}))


@pytest.mark.parametrize(
    ("pyproject", "files", "command"),
    [
        (PROJECT, {"uv_lock": ""}, "sync --locked"),
        (f"{PROJECT}[tool.uv.workspace]\nmembers = ['a']", {"uv_lock": ""}, "sync --locked --all-packages"),
        (f"{PROJECT}[tool.mesh]\ngroups = ['t']\nextras = ['x']", {"uv_lock": ""},
         "sync --locked --no-default-groups --group=t --extra=x"),
        (f"{PROJECT}[tool.mesh]\ngroups = []", {"uv_lock": ""}, "sync --locked --no-default-groups"),
        (PROJECT + GROUPS, {}, "pip install --requirements=pyproject.toml --group=dev"),
        (PROJECT + BUILT + GROUPS, {}, "pip install --editable . --group=dev"),
        (f"{PROJECT}{BUILT}[tool.mesh]\nextras = ['x', 'y']", {}, "pip install --editable .[x,y]"),
        (f"{PROJECT}{BUILT}[tool.uv]\npackage = false", {}, "pip install --requirements=pyproject.toml"),
        (f"{GROUPS}[tool.uv]\ndefault-groups = 'all'", {}, "pip install --group=dev --group=docs"),
        (f"{GROUPS}[tool.uv]\ndefault-groups = ['docs']", {}, "pip install --group=docs"),
        (f"{PROJECT}{GROUPS}[tool.uv]\ndefault-groups = 5", {}, "pip install --requirements=pyproject.toml"),
        (PROJECT, {"requirements_txt": "a"},
         "pip install --requirements=pyproject.toml --requirements=requirements.txt"),
        ("", {"requirements_txt": "a", "requirements-dev_txt": "b", "requirements-docs_txt": "c"},
         "pip install --requirements=requirements-dev.txt --requirements=requirements.txt"),
        (f"{PROJECT}[tool.mesh]\nrequirements = ['ci.txt']", {"uv_lock": "", "ci_txt": "a"},
         "pip install --requirements=pyproject.toml --requirements=ci.txt"),
    ],
)  # fmt: skip
def test_commands(tmp_path: Path, pyproject: str, files: dict[str, str], command: str) -> None:
    assert " ".join(recipe(tmp_path, pyproject, **files).command) == command


@pytest.mark.parametrize(
    ("pyproject", "files", "of_tree"),
    [
        (PROJECT, {"uv_lock": ""}, False),
        (PROJECT + BUILT, {"uv_lock": ""}, True),
        (f"{PROJECT}{BUILT}[tool.uv]\npackage = false", {"uv_lock": ""}, False),
        (f"{PROJECT}[tool.uv]\npackage = true", {"uv_lock": ""}, True),
        (f"{PROJECT}[tool.uv.sources]\na = {{path = 'a'}}", {"uv_lock": ""}, True),
        (f"{PROJECT}[tool.uv.sources]\na = [{{workspace = true}}]", {"uv_lock": ""}, True),
        (f"{PROJECT}[tool.uv.sources]\na = {{git = 'https://h/a'}}", {"uv_lock": ""}, False),
        (PROJECT + BUILT, {}, True),
        ("", {"requirements_txt": "a == 1\n# -e .\nb @ https://host/b.whl\n--no-binary c"}, False),
        ("", {"requirements_txt": "-e ."}, True),
        ("", {"requirements_txt": "./libs/a"}, True),
        ("", {"requirements_txt": "a @ file:///somewhere"}, True),
        ("", {"requirements_txt": "-r base.txt", "base_txt": "--editable=libs/a"}, True),
    ],
)
def test_whether_the_tree_is_installed_too(
    tmp_path: Path, pyproject: str, files: dict[str, str], of_tree: bool
) -> None:
    assert recipe(tmp_path, pyproject, **files).of_tree is of_tree


def test_what_makes_another_environment(tmp_path: Path) -> None:
    """And what does not: how pytest is configured, say."""
    first = recipe(tmp_path / "1", PROJECT + GROUPS, uv_lock="1").digest
    assert recipe(tmp_path / "2", f"{PROJECT}{GROUPS}[tool.pytest.ini_options]\nx = 1", uv_lock="1").digest == first
    others = [
        recipe(tmp_path / "3", PROJECT + GROUPS, uv_lock="2"),
        recipe(tmp_path / "4", PROJECT + GROUPS, uv_lock="1", uv_toml="offline = true"),
        recipe(tmp_path / "5", f"{PROJECT}{GROUPS}[tool.uv]\ncompile-bytecode = true", uv_lock="1"),
        recipe(tmp_path / "6", f"{PROJECT}{GROUPS}[tool.mesh]\ngroups = ['docs']", uv_lock="1"),
        recipe(tmp_path / "7", "", requirements_txt="-r a.txt", a_txt="-c b.txt", b_txt="x"),
        recipe(tmp_path / "8", "", requirements_txt="-r a.txt", a_txt="-c b.txt", b_txt="y"),
    ]
    assert len({first, *(other.digest for other in others)}) == 7


@pytest.mark.parametrize("line", ["-r ../outside.txt", "-r /etc/hosts", "--requirement=gone.txt"])
def test_requirement_files_lie_in_the_tree(tmp_path: Path, line: str) -> None:
    (tmp_path / "outside.txt").write_text("a")
    with pytest.raises(UsageError, match="is not in the tree"):
        recipe(tmp_path / "tree", requirements_txt=line)
