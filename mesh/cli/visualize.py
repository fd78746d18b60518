"""`mesh visualize -o FILE [RUN]`: what the mesh did, as a sheet; a run's Gantt; how long tests take on which host."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mesh.api.checks import parse_run
from mesh.cli.arguments import checked, output_path
from mesh.cli.client import Client
from mesh.cli.output import print_document
from mesh.cli.session import connect
from protocols.errors import UsageError

HELP = (
    "Draw one sheet of what the mesh did (overview), the timeline of a run (gantt), or how long tests take "
    "on each host (heatmap): of RUN, or of the newest."
)

SUFFIXES = (".png", ".svg")
KINDS = ("overview", "gantt", "heatmap")
SIZES = ("laptop", "poster")

TESTS_PER_PAGE = 1_000
TESTS_MAX = 100_000
"""Of one run, in a heat map."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", type=checked(parse_run), metavar="RUN", help="for gantt and heatmap")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", required=True)
    parser.add_argument("--kind", choices=KINDS, default="overview")
    add_size(parser)


def add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="a poster is over three times as large")


def run(args: argparse.Namespace) -> int:
    path = output_path(args.output, SUFFIXES)
    if args.run is not None and args.kind == "overview":
        raise UsageError(f"run {args.run} has no overview of its own: try --kind gantt or --kind heatmap")
    client = connect(args)
    document = {"overview": _overview, "gantt": _gantt, "heatmap": _heatmap}[args.kind](
        client, args.run, path, args.size
    )
    if args.json:
        print_document(document)
    else:
        print(path)
    return 0


def _overview(client: Client, run: int | None, path: Path, size: str) -> Any:
    document = client.get("/api/overview")
    from mesh.views.render import draw_overview

    draw_overview(document, path, size)
    return document


def _gantt(client: Client, run: int | None, path: Path, size: str) -> Any:
    told = _run(client, run)
    timeline = client.get(f"/api/runs/{told['run']}/timeline")
    from mesh.views.pictures import CRITICAL_NAMED_MAX, gantt
    from mesh.views.render import draw_gantt

    longest = sorted(gantt(timeline).critical, key=lambda step: -step.seconds)[:CRITICAL_NAMED_MAX]
    names = {one.index: str(client.get(f"/api/runs/{told['run']}/tests/{one.index}")["test"]) for one in longest}
    draw_gantt(timeline, _title(told), names, path, size)
    return timeline


def _heatmap(client: Client, run: int | None, path: Path, size: str) -> Any:
    from mesh.views.render import draw_heat

    if run is None:
        document = client.get("/api/overview")
        verdicts = document["verdicts"]
        names = {str(node["peer"]): str(node["name"]) for node in document["nodes"]}
        title = "How long tests take on each host, in the newest runs"
    else:
        verdicts = list(_tests(client, run))
        names = {str(one["worker"]): str(one["name"] or "") for one in verdicts}
        title = f"{_title(_run(client, run))}: how long tests take on each host"
    draw_heat(verdicts, names, title, path, size)
    return {"verdicts": verdicts}


def _tests(client: Client, run: int) -> Iterator[dict[str, Any]]:
    """Those of a run that have a verdict."""
    for offset in range(0, TESTS_MAX, TESTS_PER_PAGE):
        page = client.get(f"/api/runs/{run}/tests?offset={offset}&limit={TESTS_PER_PAGE}")["tests"]
        yield from (one for one in page if one["outcome"] and one["worker"])
        if len(page) < TESTS_PER_PAGE:
            return


def _run(client: Client, run: int | None) -> dict[str, Any]:
    """The one named, or the newest that has tests."""
    if run is not None:
        return dict(client.get(f"/api/runs/{run}"))
    found = [one for one in client.get("/api/runs")["runs"] if one["done"]]
    if not found:
        raise UsageError("no run has a verdict yet: there is nothing to draw")
    return dict(found[-1])


def _title(run: dict[str, Any]) -> str:
    return f"Run {run['run']} {run.get('name') or ''}".rstrip()
