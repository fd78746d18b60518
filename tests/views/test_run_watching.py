"""One run as it is watched: what runs, waits and would help, from the API's documents."""

from mesh.views.run_watching import HELPS_MAX, RunWatching, Underway


def test_what_runs_is_told_with_the_longest_first() -> None:
    watching = RunWatching()
    row = {"worker": "12D3KooWaaaaaaaa", "name": "alpha"}
    rows = [
        {**row, "test": "t.py::new\x1b[2J", "running_seconds": 1.0},
        {**row, "test": "t.py::old", "running_seconds": 90.0},
        {"test": "t.py::elsewhere", "worker": "12D3KooWbbbbbbbb", "name": None},
    ]
    watching.take_tests({"tests": rows, "counts": {"running": 5}}, 100.0)
    assert [(one.test, one.host, one.since) for one in watching.running] == [
        ("t.py::old", "alpha", 10.0),
        ("t.py::new\ufffd[2J", "alpha", 99.0),
        ("t.py::elsewhere", "…bbbbbbbb", 100.0),
    ]
    assert watching.running_total == 5
    watching.take_tests({"tests": [], "counts": {"running": 0}}, 101.0)
    assert (watching.running, watching.running_total) == ((), 0)


def test_what_waits_is_that_of_this_run() -> None:
    watching = RunWatching(running=(Underway("t.py::x", "alpha", 1.0),))
    waits = [{"text": "a free slot", "tests": 7}]
    mine = {"run": "17", "place": 2, "of": 3, "eta_seconds": 60.0, "reasons": waits}
    watching.take_queue({"runs": [{**mine, "run": "16", "eta_seconds": 1.0}, mine]}, "17", 100.0)
    assert (watching.reasons, watching.ends_at) == (((7, "a free slot"),), 160.0)
    helps = [{"kind": "node", "text": f"another host, {n}"} for n in range(HELPS_MAX + 1)]
    told = {"helps": [{"kind": "wait", "text": "wait"}, helps[0], *helps]}
    watching.take_why({"waiting": [told]})
    assert watching.remarks[:2] == ["number 2 of 3 in the queue", "would help: another host, 0"]
    assert len(watching.remarks) == 1 + HELPS_MAX
    watching.take_queue({"runs": []}, "17", 101.0)
    assert (watching.reasons, watching.remarks, watching.ends_at) == ((), [], None)
