"""Loaded before any test: how hypothesis runs here, and what Ctrl-C means."""

import signal

import pytest
from hypothesis import settings

from tests import properties  # noqa: F401 - registers the profile

settings.load_profile("mesh")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's background job, for all that tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("processes", "examples", "dashboard", "interop", "chaos", "simulation")
"""Folders of files that take long, most of it waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those first: with several files at a time, what is left for the end is short."""
    place = {name: index for index, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.parent.name, len(LONG)))
