"""Whole conversations, as text: `scripts/*.txt`. After a change that is meant, MESH_REWRITE_SCRIPTS=1 writes them anew;
read the difference before believing it."""

import os
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
