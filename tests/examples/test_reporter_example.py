"""The reporter of examples/reporter, installed as a package is (without a network), and found by its entry point."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cli.served_node import ROOT

LOOK = """
import sys
from pathlib import Path
from mesh.cli.reporting import choose, _make
from tests.reporters.samples import sample
sys.exit(_make(sample(), choose(["tap:made/run.tap"], None, Path.cwd(), {}), False))
"""


def test_it_is_installed_and_makes_its_report(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "examples" / "reporter", source)
    target = tmp_path / "installed"
    flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
    install = [sys.executable, "-m", "pip", "install", *flags, "--target", str(target), str(source)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "made" / "run.tap").read_text().splitlines()
    assert lines[:3] == ["TAP version 13", "1..7", "ok 1 - tests/test_a.py::test_good"]
    assert "not ok 2 - tests/test_a.py::test_bad" in lines
    assert "ok 4 - tests/test_b.py::TestX::test_skip # SKIP later" in lines
