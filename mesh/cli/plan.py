"""`mesh plan`: where a run would go, and how long it would take, without running it.

Its tests are those of the newest run of the same, which the mesh has. Where it has none they are collected here, in
this tree and by the Python that this command runs under: nothing is bundled, and what was collected is kept nowhere
for long. A suite that needs an environment of its own can't be collected here: then its tests stay unknown.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from mesh.cli import run as run_verb
from mesh.cli.arguments import checked_home
from mesh.cli.client import Client
from mesh.cli.companion import home_for_once
from mesh.cli.matrix import check_pythons
from mesh.cli.output import note, print_document
from mesh.cli.session import find, with_node
from mesh.cli.signals import termination_interrupts
from mesh.cli.submission import Submission, prepare
from protocols.codec import encode
from protocols.errors import NoCapableWorker
from protocols.ids import PeerId
from protocols.manifests import Manifest

HELP = """Say where a run would go and how long it would take, without running it.
The same arguments as `mesh run`."""


def configure(parser: argparse.ArgumentParser) -> None:
    run_verb.configure(parser)
    parser.usage = "mesh plan [PATH] [options of mesh run] [-- PYTEST_ARGS]"


def run(args: argparse.Namespace) -> int:
    """Exit code 10: something of it has no worker that could take it."""
    args.python = check_pythons(args.python)
    if args.home is not None:
        checked_home(args.home)
    submission = prepare(args)
    running = find(args)

    def work(client: Client) -> int:
        return _plan(args, client, submission)

    def interrupt(client: Client) -> None:
        raise KeyboardInterrupt

    if running is None:
        return with_node(args, args.n, work, interrupt)
    with termination_interrupts():
        return work(running)


def _plan(args: argparse.Namespace, client: Client, submission: Submission) -> int:
    specs = [{**submission.spec, "python": python} for python in args.python or [submission.spec["python"]]]
    document = client.post("/api/plan", {"runs": [{"spec": spec} for spec in specs]})
    unknown = [place for place, run in enumerate(document["runs"]) if run["source"] == "unknown"]
    if unknown and all(_is_ours(specs[place]) for place in unknown):
        manifest = _collected(submission)
        if manifest is not None:
            with home_for_once(client.home) as folder:
                (folder / "manifest").write_bytes(encode(manifest))
                cid = client.add(folder / "manifest")
            runs = [{"spec": spec, "manifest": cid if place in unknown else None} for place, spec in enumerate(specs)]
            document = client.post("/api/plan", {"runs": runs})
    if args.json:
        print_document(document)
    else:
        from mesh.views.plans import plan_lines

        print("\n".join(plan_lines(document)))
    return NoCapableWorker.exit_code if any(not one["capable"] for one in document["waiting"]) else 0


def _is_ours(spec: dict[str, Any]) -> bool:
    """Whether the suite can be collected by the Python of this command."""
    return spec["environment"] == "ambient" and not spec["python"]


def _collected(submission: Submission) -> Manifest | None:
    """What pytest collects here; None, and a word why, if it can't."""
    import trio

    from mesh.ports import Job
    from mesh.worker.runner import PytestRunner
    from mesh.worker.sessions import told_reason

    job = Job(
        root=submission.root,
        arguments=tuple(submission.spec["arguments"]),
        command=None,
        files=(),
        timeout=0.0,
        python=sys.executable,
        variables={"PYTHONDONTWRITEBYTECODE": "1"},
        slots=1,
        run="plan",
        worker=PeerId(""),
        test_type=submission.spec["test_type"],
    )
    note(f"collecting {Path(submission.root).name} here, as the mesh has no run of it")
    found = trio.run(PytestRunner().collect, job)
    if isinstance(found, Manifest):
        return found
    note(f"it can't be collected here: {told_reason(found.exit_code, found.output)}")
    return None
