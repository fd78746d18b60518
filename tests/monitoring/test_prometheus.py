"""A real node, scraped by a real Prometheus with the example's configuration; what promtool says of all of it."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.monitoring.prometheus_server import EXAMPLES, Prometheus, needs_prometheus, prometheus, promtool
from tests.processes.lab import Lab, lab

pytestmark = [needs_prometheus, pytest.mark.processes, pytest.mark.timeout(240)]

SUITE = "import pytest\n\n@pytest.mark.parametrize('n', range(5))\ndef test_it(n):\n    assert n\n"

NOT_EVERYWHERE = frozenset({"mesh_gpu_busy_ratio", "mesh_gpu_memory_free_bytes"})
"""What not every host has."""

WORDS = re.compile(r"\b(?:mesh_[a-z0-9_]+|process_[a-z_]+)\b")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One node whose log is JSON, after a run with a test that fails."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        made.start("a", "--log-format", "json")
        made.agreed("a")
        failed = made.mesh("run", str(made.suite("counts", SUITE)), "--progress", "off", home="a", check=False)
        assert failed.returncode == 1, failed.stderr
        yield made


def endpoint(node: Lab) -> tuple[str, str]:
    """The API's URL, and the token for /metrics."""
    api = json.loads((node.home("a") / "api.json").read_text())
    return str(api["url"]), (node.home("a") / "metrics.token").read_text().strip()


def page(node: Lab, path: str = "/metrics", accept: str = "text/plain") -> str:
    url, token = endpoint(node)
    headers = {"authorization": f"Bearer {token}", "accept": accept}
    with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=60) as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def server(node: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    url, token = endpoint(node)
    with prometheus(tmp_path_factory.mktemp("prometheus"), url.removeprefix("http://"), token) as made:
        yield made


def test_promtool_has_nothing_to_say_of_the_metrics(node: Lab) -> None:
    promtool("check", "metrics", text=page(node))


def test_a_prometheus_scrapes_a_node(server: Prometheus) -> None:
    server.until("up", 1.0)
    assert server.value("mesh_coordinator") == 1.0
    assert server.value('mesh_tests_total{outcome="passed"}') == 4.0
    assert server.value('mesh_tests_total{outcome="failed"}') == 1.0
    assert server.value('mesh_runs_total{state="failed"}') == 1.0
    for counted in ("mesh_dispatch", "mesh_queue_wait", "mesh_raft_commit", "mesh_raft_fsync", "mesh_plan"):
        assert (server.value(f"{counted}_seconds_count") or 0) >= 1, counted
    assert (server.value("mesh_content_bytes") or 0) > 0
    assert (server.value("mesh_slots") or 0) == 1
    assert (server.value("process_resident_memory_bytes") or 0) > 20e6


def test_no_label_grows_with_what_is_run(server: Prometheus) -> None:
    server.until("up", 1.0)
    for series in server.ask("series", **{"match[]": '{__name__=~"mesh_.*"}'}):
        labels = series.keys() - {"__name__", "instance", "job"}
        assert labels <= {
            "code", "gpu", "le", "log_format", "method", "name", "outcome", "peer", "priority", "python", "reason",
            "result", "role", "state", "version",
        }  # fmt: skip


def test_the_token_for_metrics_opens_nothing_else(node: Lab) -> None:
    for path in ("/api/status", "/api/ticket", "/metrics/x"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            page(node, path)
    assert "# EOF" in page(node, accept="application/openmetrics-text; version=1.0.0")


def expressions(document: Any) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(document, dict):
        if isinstance(document.get("expr"), str):
            yield document["expr"]
        for inner in document.values():
            yield from expressions(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from expressions(inner)


def test_the_dashboard_and_the_rules_use_what_there_is(node: Lab, server: Prometheus) -> None:
    """Every metric that they name is told by a node, and every query of the dashboard is one that Prometheus takes."""
    told = set(re.findall(r"^(?:# TYPE )?([a-z_0-9]+)", page(node), re.MULTILINE)) | NOT_EVERYWHERE
    queries = list(expressions(json.loads((EXAMPLES / "grafana.json").read_text())))
    assert len(queries) > 40
    for text in (*queries, (EXAMPLES / "rules.yml").read_text()):
        recorded = re.sub(r"job[a-z_]*:[a-z_]+:[a-z0-9_]+", "", text)
        assert set(WORDS.findall(recorded)) <= told
    for query in queries:
        server.ask("query", query=query.replace("$job", "mesh").replace("$__rate_interval", "1m"))
    groups = {group["name"] for group in server.ask("rules")["groups"]}
    assert groups == {"mesh-recordings", "mesh-nodes", "mesh-group", "mesh-work"}


def test_the_rules_do_what_they_say() -> None:
    promtool("check", "rules", "rules.yml")
    promtool("test", "rules", "rules_test.yml")


def test_every_line_of_a_json_log_is_an_event(node: Lab) -> None:
    """What a node prints on stdout ("key: value") stands in the same file here."""
    printed = ("peer: ", "listening: ", "home: ", "dashboard: ", "coordinator: ")
    lines = (node.folder / "a.log").read_text().splitlines()
    events = [json.loads(line) for line in lines if not line.startswith(printed)]
    assert len(events) >= 3
    for event in events:
        assert event.keys() >= {"time", "level", "logger", "message", "node"}
