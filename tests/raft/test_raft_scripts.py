"""Whole conversations, as text: `scripts/*.txt`. After a change that is meant, MESH_REWRITE_SCRIPTS=1 writes them anew;
read the difference before believing it. `scripts/README.md` says what is covered where."""

import os
import re
from pathlib import Path

import pytest
from raft_script import rewritten, scripts


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    text = path.read_text()
    now = rewritten(text)
    if os.environ.get("MESH_REWRITE_SCRIPTS") == "1":
        path.write_text(now)
    else:
        assert now == text


def test_the_table_of_scripts_is_whole() -> None:
    paths = scripts()
    table = (paths[0].parent / "README.md").read_text()
    listed = {
        name for row in re.findall(r"\|([^|\n]*)\|$", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert listed == {path.stem for path in paths}
    assert all(path.read_text().startswith("# ") for path in paths), "a script opens with what it shows"
