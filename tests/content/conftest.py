"""Nodes for the tests of content."""

from pathlib import Path

import pytest

from tests.content.content_nodes import NodeMaker, node_maker


@pytest.fixture
def content_node(tmp_path: Path) -> NodeMaker:
    return node_maker(tmp_path)
