"""`mesh history TEST`: a test over time; without one, the projects and their newest runs."""

import argparse
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mesh.api.checks import parse_cid
from mesh.cli.arguments import checked, whole
from mesh.cli.output import print_document, say_whose
from mesh.cli.session import connect
from mesh.views import human
from protocols.errors import UsageError

HELP = "Show what became of a test in past runs, or of a project's past runs."

MARKS = {"passed": ".", "failed": "F", "error": "E", "skipped": "s", "xfailed": "x", "xpassed": "X"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("test", nargs="?", metavar="TEST", help="a test's ID; without one: the project's runs")
    parser.add_argument(
        "--rebuild",
        nargs="*",
        type=checked(parse_cid),
        metavar="CID",
        help="fill the node's history from these reports, or from those of all runs that the log knows",
    )
    parser.add_argument("--project", metavar="NAME", help="default: the project of the newest run")
    parser.add_argument("--limit", type=whole(1, 500), default=20, metavar="N", help="newest runs; default 20")


def run(args: argparse.Namespace) -> int:
    client = connect(args)
    if args.rebuild is not None:
        return _rebuild(client.post("/api/history/rebuild", {"reports": args.rebuild or None}), args.json)
    project = args.project
    if project is None:
        known = client.get("/api/projects")["projects"]
        if not known:
            raise UsageError("no run is in the history yet")
        project = known[0]["project"]
    asked = {"project": project, "limit": args.limit}
    if args.test is None:
        document = client.get(f"/api/trends?{urlencode(asked)}")
        text = _trends
    else:
        document = client.get(f"/api/tests?{urlencode({**asked, 'test': args.test})}")
        if not document["results"]:
            raise UsageError(f"{args.test[:200]!r} is in no past run of project {project!r}")
        text = _test
    if args.json:
        print_document(document)
    else:
        print(text(document))
        say_whose(document)
    return 0


def _rebuild(document: Mapping[str, Any], as_json: bool) -> int:
    if as_json:
        print_document(document)
    else:
        added, known = len(document["added"]), document["known"]
        print(f"{human.plural(added, 'run')} added to the history of this node, {known} known already")
        for one in document["failed"]:
            print(f"  {one['report']}: {one['error']}")
    return 1 if document["failed"] else 0


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _test(document: Mapping[str, Any]) -> str:
    results = document["results"]
    took, flaky = document["duration"], document["flaky"]
    marks = "".join(MARKS[one["outcome"]] for one in reversed(results))
    lines = [human.clean(document["test"]), f"  {marks}  (newest last)"]
    if took["median"] is not None:
        lines.append(f"  median {human.duration(took['median'])}, 95 % under {human.duration(took['p95'])}")
    lines.append(f"  {document['bad']} of {len(results)} bad; it changed {flaky['flips']} times")
    lines += [
        f"  {one['name'] or one['peer']}: {one['runs']} runs, {one['bad']} bad"
        + (f", median {human.duration(one['median'])}" if one["median"] is not None else "")
        for one in document["hosts"]
    ]
    lines += [
        f"  run {one['run']}  {_day(one['at'])}  {one['outcome']:<8}{human.duration(one['duration']):>9}  {one['name']}"
        for one in results
    ]
    return "\n".join(lines)


def _trends(document: Mapping[str, Any]) -> str:
    lines = [f"project {document['project']}"]
    for one in document["runs"]:
        rate = "" if one["pass_rate"] is None else f"{one['pass_rate']:.1%} pass"
        took = human.duration(one["wall_seconds"])
        covered = "" if one["coverage"] is None else f"  {one['coverage']:.1%} covered"
        lines.append(
            f"  run {one['run']}  {_day(one['at'])}  {one['state']:<9} {one['tests']} tests  {rate}  {took}{covered}"
        )
    for name, entries in (("slower than before", document["slower"]), ("flaky", document["flakiest"])):
        if entries:
            lines += [f"{name}:", *(f"  {human.clean(one['test'])}" for one in entries[:5])]
    return "\n".join(lines)
