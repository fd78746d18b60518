"""What `--mesh-…` options of pytest ask for: as `mesh run`'s, with the project's `[tool.mesh]` as their defaults."""

import argparse
from typing import Any

import pytest

from mesh.cli.project import Project
from mesh.cli.submission import allowed_unseen, named_python
from mesh.pytest_plugin import OPTIONS
from mesh.scheduler.environments import ENVIRONMENTS
from protocols.errors import UsageError

_WITHOUT_OPTION = {"test_timeout": 0.0, "share": 1, "deadline": 0.0, "preempt": "grace", "after": []}
"""Of a run, what only the project can say here."""


def options_of(config: pytest.Config, project: Project) -> argparse.Namespace:
    """As the parser of `mesh run` has them; `UsageError` for what makes no sense."""
    said = project.defaults
    given: dict[str, Any] = {}
    for option, _, default, *_ in OPTIONS:
        name = option.replace("-", "_")
        value = config.getoption(f"mesh_{name}")
        given[name] = said.get(name, default) if value is None else value
    if not 0 <= given["priority"] <= 100:
        raise UsageError(f"--mesh-priority {given['priority']} is not within 0 to 100")
    for name in ("retries", "worker_count"):
        if not 0 <= given[name] < 2**31:
            raise UsageError(f"--mesh-{name.replace('_', '-')} {given[name]} is not a whole number of at least 0")
    if given["env"] not in ENVIRONMENTS:
        raise UsageError(f"--mesh-env {given['env']!r} is none of {', '.join(ENVIRONMENTS)}")
    for name in ("hedge", "cached"):
        value = config.getoption(f"mesh_{name}")
        given[name] = said.get(name, False) if value is None else value
    allowed = given["cached_allow"]
    given["cached_allow"] = allowed_unseen(allowed) if isinstance(allowed, str) and allowed else list(allowed)
    if not given["cached"] and config.getoption("mesh_cached_allow") is None:
        given["cached_allow"] = []
    if isinstance(given["python"], str):
        given["python"] = [named_python(given["python"])] if given["python"] else []
    elif len(given["python"]) > 1:
        raise UsageError("python in [tool.mesh] names several, and a session of pytest has one: give --mesh-python")
    return argparse.Namespace(**given, **{name: said.get(name, value) for name, value in _WITHOUT_OPTION.items()})
