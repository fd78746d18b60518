"""What would help work that waits: gaps between workers and requirements, and the sentences that come of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_rig import Rig

from mesh.hardware import LOADS, PROBES
from mesh.scheduler.environments import with_needs
from mesh.scheduler.facts import CHANGING, PROBED
from mesh.scheduler.feasibility import Need
from mesh.scheduler.gaps import Gap, gaps
from mesh.scheduler.helps import HELPS_MAX, helps
from mesh.scheduler.requirements import parse, show, unmet
from mesh.scheduler.waiting import Help, Holder
from protocols.ids import PeerId, RunId, TestIndex
from protocols.manifests import Needs

GIB = 2**30
A, B, C = (PeerId(name) for name in "abc")
BOX: dict[str, object] = {
    "os": "linux",
    "python": "3.11.7",
    "pythons": ("3.11.7", "3.12.1"),
    "memory": 32 * GIB,
    "memory.available": 6 * GIB,
    "cpu.percent": 61.5,
    "cpu.threads": 8,
    "slots": 2,
    "browsers": (),
    "gpu": (
        {"index": 0, "memory": 24 * GIB, "memory.free": 6 * GIB, "cuda": 12.4},
        {"index": 1, "memory": 8 * GIB, "memory.free": 8 * GIB, "cuda": 12.4},
    ),
}


def rig(**boxes: dict[str, object]) -> Rig:
    made = Rig()
    for name, changes in boxes.items():
        view = {key: changes.pop(key) for key in ("alive", "draining", "unfit", "lost") if key in changes}
        made.worker(name, capabilities={**BOX, **changes}, **view)
    return made


def said(made: Rig, requires: str, takes: Needs | None = None, **free_in: float) -> list[str]:
    return [help.text for help in told(made, requires, takes, **free_in)]


def told(made: Rig, requires: str, takes: Needs | None = None, **free_in: float) -> tuple[Help, ...]:
    wanted = Need((requires,) if requires else (), (), takes or Needs())
    views = [made.fleet[peer] for peer in sorted(made.fleet)]
    return helps(wanted, made.state, views, {PeerId(name): seconds for name, seconds in free_in.items()}, RunId(7))


class TestGaps:
    @pytest.mark.parametrize(
        ("text", "missing"),
        [
            ("os == linux", []),
            ("os == darwin", [("os == darwin", "linux", "")]),
            ("room == 5 and os == linux and secure", [("room == 5", None, ""), ("secure", None, "")]),
            ("room == 5 or os == darwin and secure", [("room == 5", None, "")]),
            ("not os == linux", [("not (os == linux)", None, "")]),
            ("gpu.memory >= 40GiB", [("gpu.memory >= 40GiB", 24 * GIB, "gpu 0")]),
            ("gpu.memory.free >= 10GiB", [("gpu.memory.free >= 10GiB", 8 * GIB, "gpu 1")]),
            (
                "gpu.memory >= 16GiB and gpu.memory.free >= 8GiB and gpu.cuda >= 12",
                [("gpu.memory.free >= 8GiB", 6 * GIB, "gpu 0")],
            ),
            ("gpu.cuda >= 13 and not gpu.memory >= 10GiB", [("gpu.cuda >= 13", 12.4, "gpu 1")]),
            ("tpu.memory >= 1GiB", [("tpu.memory >= 1GiB", None, "")]),
        ],
    )
    def test_the_fewest_terms_and_the_nearest_device(self, text: str, missing: list[tuple[str, object, str]]) -> None:
        found = gaps(parse(text), BOX)  # type: ignore[arg-type]
        assert [(show(gap.term), gap.actual, gap.device) for gap in found] == missing

    @given(st.sampled_from(["a", "b", "not c", "d == 1"]), st.sampled_from(["a", "not b", "c", "d == 2"]), st.data())
    def test_none_exactly_where_the_requirement_is_met(self, left: str, right: str, data: st.DataObject) -> None:
        text = data.draw(st.sampled_from(["{} and {}", "{} or {}", "not ({} and {})", "not ({} or {})"]))
        there = data.draw(st.dictionaries(st.sampled_from("abc"), st.booleans()))
        expression = parse(text.format(left, right))
        assert bool(gaps(expression, there)) == bool(unmet(expression, there))


class TestWhoWouldDo:
    def test_the_label_that_two_of_three_lack(self) -> None:
        made = rig(a={}, b={}, c={"os": "darwin"})
        assert said(made, "os == linux and rack == r7") == [
            "2 of 3 nodes would do if label rack=r7 were set: restart a, b with --label rack=r7",
            "start a worker with os == linux and rack == r7",
        ]

    def test_one_that_only_has_to_be_there(self) -> None:
        assert said(rig(a={}), "label.ssd")[0] == (
            "the node would do if label ssd=yes were set: restart a with --label ssd=yes"
        )

    def test_a_python_that_nobody_has(self) -> None:
        made = rig(a={}, b={})
        assert said(made, with_needs("", "ambient", "3.13")) == [
            "2 of 2 nodes would do if Python 3.13 were installed: install Python 3.13 on a, b",
            "start a worker with Python 3.13",
        ]

    def test_what_can_be_installed(self) -> None:
        first = said(rig(a={}), "uv and chromium in browsers and python >= 3.12")[0]
        assert first.startswith(
            "the node would do if uv were installed and chromium were installed and Python 3.12 or newer were installed"
        )

    def test_slots(self) -> None:
        assert said(rig(a={}), "slots >= 4")[0] == "the node would do if --slots were 4: restart a with --slots 4"

    def test_memory_that_may_become_free(self) -> None:
        made = rig(a={}, b={"gpu": ()})
        assert said(made, "gpu.memory >= 16GiB and gpu.memory.free >= 8GiB") == [
            "1 of 2 nodes would do if 2 GiB more of the memory of gpu 0 were free (a)",
            "start a worker with gpu.memory >= 16GiB and gpu.memory.free >= 8GiB",
        ]
        assert said(made, "memory.available >= 8GiB")[0] == (
            "2 of 2 nodes would do if 2 GiB more of its memory were free (a, b)"
        )

    def test_more_than_there_is_never_becomes_free(self) -> None:
        assert said(rig(a={}), "memory.available >= 64GiB") == ["start a worker with memory.available >= 64GiB"]

    def test_a_busy_host(self) -> None:
        assert said(rig(a={}), "cpu.percent < 50%")[0] == (
            "the node would do if cpu.percent < 50% held (it is 61.5) (a)"
        )

    def test_hardware_that_nobody_has_and_who_is_nearest(self) -> None:
        made = rig(a={}, b={"gpu": ({"index": 0, "memory": 12 * GIB},)}, c={"gpu": ()})
        assert said(made, "gpu.memory >= 32 GiB") == [
            "start a worker with gpu.memory >= 32GiB (the nearest is a, whose gpu.memory is 24 GiB)"
        ]

    def test_fewer_remedies_first_and_a_bound_on_all(self) -> None:
        boxes = {name: {f"l{i}": "1" for i in range(7) if i != place} for place, name in enumerate("abcdefg")}
        made = rig(**boxes)  # type: ignore[arg-type]
        found = told(made, " and ".join(f"l{i} == 1" for i in range(7)))
        assert len(found) == HELPS_MAX
        assert [help.kind for help in found] == ["label"] * (HELPS_MAX - 1) + ["node"]
        both = told(rig(a={}, b={"x": "1"}), "x == 1 and y == 1")
        assert [(help.kind, help.nodes) for help in both] == [("label", (B,)), ("several", (A,)), ("node", ())]

    def test_nobody_has_joined(self) -> None:
        assert said(rig(), "gpu") == ["start a worker with gpu"]
        assert said(rig(), "") == ["start a worker"]

    def test_what_can_not_be_read(self) -> None:
        assert said(rig(a={}), "gpu >=")[0].startswith(
            "correct the requirement: requirement 'gpu >=': expected a value"
        )


class TestWaiting:
    def test_for_the_first_that_finishes(self) -> None:
        made = rig(a={}, b={}, c={"os": "darwin"})
        (help,) = told(made, "os == linux", a=30.0, b=12.4, c=1.0)
        assert help == Help(
            "wait", "wait: node b finishes in about 12 s (1 more could take it, later)", (A, B), pytest.approx(12.4)
        )

    def test_for_nothing(self) -> None:
        assert said(rig(a={}), "", a=0.0) == ["wait: node a has an idle slot"]

    def test_for_a_lock(self) -> None:
        made = rig(a={}, b={})
        wanted = Need((), (), Needs(locks=("camera",)))
        views = list(made.fleet.values())
        holder = Holder("camera", RunId(3), TestIndex(0), "b")
        (help,) = helps(wanted, made.state, views, {B: 200.0}, RunId(7), [holder])
        assert help.text == "wait: camera comes free when run 3 has done with it on b, in about 3 min"
        assert (help.nodes, help.seconds) == ((B,), 200.0)

    def test_for_those_that_are_away(self) -> None:
        made = rig(a={"alive": False}, b={"draining": True}, c={"os": "darwin"})
        assert said(made, "os == linux")[:2] == [
            "a could do it, but does not answer",
            "b could do it, but is draining",
        ]

    def test_for_those_that_could_not_prepare_it(self) -> None:
        (help, _) = told(rig(a={"unfit": frozenset((RunId(7),))}), "os == linux")
        assert (help.kind, help.nodes) == ("return", (A,))
        assert "could not prepare this run" in help.text


class TestAmounts:
    def test_more_than_any_worker_has_when_idle(self) -> None:
        made = rig(a={}, b={"memory": 16 * GIB})
        assert said(made, "", Needs(memory=64 * GIB)) == [
            "ask for less: a has 32 GiB of memory, and 64 GiB are needed",
            "start a worker with 64 GiB of memory",
        ]

    def test_devices(self) -> None:
        assert said(rig(a={}), "gpu.memory >= 16GiB", Needs(gpu=2000))[0] == (
            "ask for less: a has 1 gpus that would do, and 2 are needed"
        )


def test_every_name_that_a_probe_tells_is_known_not_to_be_a_label() -> None:
    assert {name.partition(".")[0] for name in CHANGING} <= PROBED
    assert {"cpu", "memory", "disk", "gpu", "uv", "browsers"} <= PROBED
    assert set(PROBES) | set(LOADS) <= PROBED | {"system"}


def test_a_gap_is_as_far_as_the_part_that_is_missing() -> None:
    (near,) = gaps(parse("memory >= 40GiB"), {"memory": 30 * GIB})
    (none,) = gaps(parse("memory >= 40GiB"), {})
    assert near.distance == pytest.approx(0.25)
    assert none == Gap(near.term)
    assert none.distance == 1.0
