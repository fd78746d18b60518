"""The same bytes and trees have the same CIDs here, in Kubo and from the reference importer, and keep them.

`make interop` (MESH_LONG=1) has all three agree on a file of 1 GiB, too; otherwise that is only checked against Kubo's
earlier word.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.cid_table import EXECUTABLES, LONG, PLAIN, TREES, Case, File, Tree, golden, ours
from tests.interop.kubo_daemon import kubo_cid, needs_kubo, new_kubo

GOLDEN = golden()
LIVE: list[Case] = [*PLAIN, *(LONG if os.environ.get("MESH_LONG") else [])]
IMPORTER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesh-ci" / "importer"

needs_importer = pytest.mark.skipif(
    shutil.which("node") is None or not (IMPORTER / "node_modules").is_dir(),
    reason="no reference importer: run .ci/importer (needs npm)",
)


@pytest.fixture(scope="module")
def path_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """Where a case lies on disk; it is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("cases")

    def path(case: Case) -> Path:
        if not (folder / case.name).exists():
            case.make(folder / case.name)
        return folder / case.name

    return path


@pytest.mark.parametrize("case", [*PLAIN, *EXECUTABLES, *LONG], ids=lambda case: case.name)
def test_our_cid(case: Case, path_of: Callable[[Case], Path]) -> None:
    assert ours(case, path_of(case) if isinstance(case, Tree) else None) == GOLDEN[case.name]


@pytest.mark.parametrize("size", [case.size for case in EXECUTABLES[:5]])
def test_a_files_cid_is_the_same_when_it_is_read_from_disk(size: int, path_of: Callable[[Case], Path]) -> None:
    for case in (File(size), File(size, executable=True)):
        assert ours(case, path_of(case)) == GOLDEN[case.name]


@pytest.mark.kubo
@needs_kubo
def test_kubos_cids(path_of: Callable[[Case], Path], tmp_path: Path) -> None:
    kubo = new_kubo(tmp_path / "kubo", bytes(32))
    found = {case.name: kubo_cid(kubo, path_of(case)) for case in LIVE}
    found |= {case.name: kubo_cid(kubo, path_of(case), executable=True) for case in EXECUTABLES}
    assert found == {name: GOLDEN[name] for name in found}


@needs_importer
def test_the_reference_importers_cids(path_of: Callable[[Case], Path]) -> None:
    cases = [case for case in LIVE if isinstance(case, File) or not case.links]
    assert len(cases) > len(TREES)
    script = (Path(__file__).parent / "importer.mjs").read_text()
    asked = [str(path_of(case)) for case in cases]
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", script],
        cwd=IMPORTER,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {Path(path).name: cid for path, cid in json.loads(done.stdout).items()}
    assert found == {case.name: GOLDEN[case.name] for case in cases}
