"""Text tables, and numbers as people read them."""

from typing import Any

import pytest

from mesh.views import human
from mesh.views.status import links_table, nodes_table, runs_table, status

A, B, C = "12D3KooWaaaaaaaaaaaaAAAA", "12D3KooWbbbbbbbbbbbbBBBB", "12D3KooWccccccccccccCCCC"

STATUS: dict[str, Any] = {
    "mesh": "k51q",
    "self": B,
    "term": 3,
    "coordinator": B,
    "voters": [A, B],
    "commit_index": 1234,
    "nodes": [
        {
            "peer": A,
            "name": "pi",
            "role": "worker",
            "state": "dead",
            "slots": 4,
            "busy": 1,
            "capabilities": {
                "cpu.cores": 4,
                "memory": 2**30,
                "os": "linux",
                "arch": "aarch64",
                "python": "3.11.7",
                "gpu": [],
            },
        },
        {
            "peer": B,
            "name": "box",
            "role": "auto",
            "state": "alive",
            "slots": 16,
            "busy": 3,
            "capabilities": {
                "cpu.cores": 16,
                "memory": 2**37,
                "gpu": [{"name": "H100"}, {"name": "H100"}, {"name": "T4"}],
            },
        },
        {"peer": C, "name": "x" * 60, "role": "client", "state": "alive", "slots": 0, "busy": 0, "capabilities": {}},
    ],
    "runs": [
        {"run": "4", "name": "old", "state": "passed", "done": 5, "counts": {"passed": 5}, "report": "bafy"},
        {
            "run": "12",
            "name": "new",
            "state": "running",
            "pending": 1000,
            "leased": 2,
            "done": 1,
            "counts": {"failed": 1},
        },
    ],
}


def test_status_text() -> None:
    assert status(STATUS).splitlines() == [
        "mesh         k51q",
        "coordinator  box …bbbbBBBB (this node)",
        "log          term 3, committed to 1,234",
        "nodes        3 nodes (1 dead)",
        "voters       2",
        "slots        3 of 16 busy",
        "runs         1 open, 1 ended",
        "",
        *nodes_table(STATUS).splitlines(),
        "",
        "RUN  NAME  STATE       DONE  LEASED  PASSED  FAILED  ERRORS  SKIPPED  TIME  REPORT",
        " 12  new   running  1/1,003       2       0       1       0        0  -     -",
    ]


def test_nodes_table() -> None:
    name = "x" * 14 + "…" + "x" * 13
    pad = " " * (28 - 3)
    assert nodes_table(STATUS).splitlines() == [
        f"NODE{pad[1:]}  PEER       ROLE    STATE  RAFT         BUSY  CORES   MEMORY  GPU           OS             "
        "PYTHON",
        f"box{pad}  …bbbbBBBB  auto    alive  coordinator  3/16     16  128 GiB  2 x H100, T4  -              -",
        f"pi {pad}  …aaaaAAAA  worker  dead   voter         1/4      4  1.0 GiB  -             linux aarch64  3.11.7",
        f"{name}  …ccccCCCC  client  alive  -             0/0      -        -  -             -              -",
    ]


def test_runs_table() -> None:
    assert runs_table(STATUS["runs"]).splitlines()[1:] == [
        "  4  old   passed       5/5       0       5       0       0        0  -     bafy",
        " 12  new   running  1/1,003       2       0       1       0        0  -     -",
    ]
    assert runs_table([]) == "no runs"


def test_texts_of_an_empty_mesh() -> None:
    text = status({"nodes": [], "runs": []})
    assert "mesh         not founded yet" in text
    assert "no majority of the voters" in text
    assert text.endswith("no nodes")


def test_links_table_has_the_slowest_first() -> None:
    document = {
        "nodes": [{"peer": "a", "name": "one"}, {"peer": "b", "name": "two"}, {"peer": "c", "name": "three"}],
        "links": [{"a": "a", "b": "b", "rtt": 0.0004}, {"a": "c", "b": "a", "rtt": 0.02}],
    }
    assert links_table(document).splitlines()[2:] == [
        "NODE   NODE     ROUND TRIP",
        "one a  three c       20 ms",
        "one a  two b        0.4 ms",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (8 * 2**30, "8.0 GiB"),
        (2**40 - 1, "1.0 TiB"),
        (2**37, "128 GiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert human.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (1e-6, "<0.01 ms"),
        (0.00042, "0.42 ms"),
        (0.0123, "12.3 ms"),
        (0.01, "10 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1 s"),
        (1.25, "1.25 s"),
        (59.99, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.9, "1 h 00 min"),
        (3 * 3600 + 12 * 60, "3 h 12 min"),
        (2 * 86400 + 4 * 3600, "2 d 04 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


def test_names_are_shortened_in_the_middle_and_cleaned() -> None:
    assert human.short("abcdefghij", 5) == "ab…ij"
    assert human.short("abcdefghij", 10) == "abcdefghij"
    assert human.short("abc", 1) == "…"
    assert human.clean("a\tb\x1b[31m\udc80") == "a b\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"


def test_hosts_lose_their_domain_only_where_they_still_differ() -> None:
    assert human.distinct(["a.lab.org", "b.lab.org"], 20) == ["a", "b"]
    assert human.distinct(["a.one.org", "a.two.org"], 20) == ["a.one.org", "a.two.org"]
