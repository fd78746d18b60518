"""From a manifest to the command that makes a run of it, or to what is wrong with it, in one sentence. Pure."""

from mesh.scheduler.durations import Estimates
from mesh.scheduler.requirements import parse
from mesh.scheduler.tasks import shard
from mesh.state import dependencies
from protocols.codec import encode
from protocols.commands import Collected, CollectFailed
from protocols.errors import MeshFailed, UsageError
from protocols.ids import Cid, LeaseId
from protocols.manifests import NOTHING, Manifest
from protocols.raft import ENTRY_BYTES_MAX

LOG_FORMAT_MIN = 3
"""Of a log that can say what tests hold, and which depend on which."""
CYCLE_SHOWN_MAX = 6
"""Tests named of those that wait for each other."""


def outcome(
    lease: LeaseId, cid: Cid, manifest: Manifest, estimates: Estimates, log_format: int
) -> Collected | CollectFailed:
    """What the log is told of a collection. `estimates`: expected seconds of each test."""
    wrong = _wrong_requirement(manifest) or _wrong_dependencies(manifest)
    if wrong:
        return CollectFailed(lease, UsageError.exit_code, wrong)
    special = bool(manifest.dependencies) or any(needs != NOTHING for needs in manifest.needs)
    if special and log_format < LOG_FORMAT_MIN:
        text = "its tests hold resources or depend on each other, and some node of this mesh is too old for that"
        return CollectFailed(lease, MeshFailed.exit_code, f"{text}: update it (`mesh raft` names the nodes)")
    tasks = shard(manifest, estimates)
    made = Collected(
        lease, cid, len(manifest.tests), tasks, manifest.requirements, manifest.needs, manifest.dependencies
    )
    size = len(encode(made))
    if size > ENTRY_BYTES_MAX:
        text = f"its tests change so often in what they need that {len(tasks)} tasks come of them"
        return CollectFailed(lease, UsageError.exit_code, f"{text}, {size} bytes, and {ENTRY_BYTES_MAX} is the limit")
    return made


def _wrong_requirement(manifest: Manifest) -> str:
    """What is wrong with a marker's requirement, naming a test that has it; empty if nothing is."""
    used: dict[int, str] = {}  # tests that were not chosen may have had others
    for test in manifest.tests:
        used.setdefault(test.requirement, test.id)
    for position, name in sorted(used.items()):
        for expression in manifest.requirements[position]:
            try:
                if expression:
                    parse(expression)
            except UsageError as error:
                return f"{name}: {error}"
    return ""


def _wrong_dependencies(manifest: Manifest) -> str:
    wrong = dependencies.problem(manifest.dependencies, len(manifest.tests))
    if wrong:
        return wrong
    circle = dependencies.cycle(manifest.dependencies)
    if not circle:
        return ""
    names = [manifest.tests[test].id for test in (*circle[:CYCLE_SHOWN_MAX], circle[0])]
    if len(circle) > CYCLE_SHOWN_MAX:
        names.insert(-1, f"… ({len(circle) - CYCLE_SHOWN_MAX} more)")
    return "tests depend on each other in a circle: " + " -> ".join(names)
