"""Sets of tests as sorted tasks, against plain sets."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.state import ranges
from mesh.state.model import Task


@st.composite
def task_lists(draw: st.DrawFn) -> list[Task]:
    tasks = []
    first = 0
    for _ in range(draw(st.integers(0, 8))):
        first += draw(st.integers(0, 3))
        count = draw(st.integers(1, 6))
        tasks.append(Task(first, count, draw(st.integers(0, 2)), draw(st.integers(0, 2))))
        first += count
    return tasks


def members(tasks: list[Task]) -> dict[int, tuple[int, int]]:
    return {t: (task.requirement, task.losses) for task in tasks for t in range(task.first, ranges.end(task))}


@given(task_lists(), st.sets(st.integers(0, 60)))
def test_within(tasks: list[Task], tests: set[int]) -> None:
    assert ranges.within(tasks, sorted(tests)) == sorted(tests & members(tasks).keys())


@given(task_lists(), st.data())
def test_subtract_partitions(tasks: list[Task], data: st.DataObject) -> None:
    everything = members(tasks)
    tests = sorted(data.draw(st.sets(st.sampled_from(sorted(everything)))) if everything else [])
    left, taken = ranges.subtract(tasks, tests)
    assert sorted(members(taken)) == tests
    assert {**members(left), **members(taken)} == everything
    assert ranges.size(left) + ranges.size(taken) == len(everything)
    assert ranges.disjoint(left)
    assert ranges.disjoint(taken)


@given(task_lists(), st.integers(-1, 60))
def test_locate(tasks: list[Task], test: int) -> None:
    position = ranges.locate(tasks, test)
    found = [i for i, task in enumerate(tasks) if task.first <= test < ranges.end(task)]
    assert ([] if position is None else [position]) == found


@given(task_lists().filter(bool), st.data())
def test_cut_out_and_insert(tasks: list[Task], data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(tasks))
    first = data.draw(st.integers(task.first, ranges.end(task) - 1))
    piece = Task(first, data.draw(st.integers(1, ranges.end(task) - first)), task.requirement, task.losses)
    assert ranges.holds(tasks, piece)
    before = members(tasks)
    ranges.cut_out(tasks, piece)
    assert not ranges.holds(tasks, piece)
    assert members(tasks).keys() == before.keys() - members([piece]).keys()
    ranges.insert(tasks, piece)
    assert members(tasks) == before
    assert tasks == sorted(tasks, key=lambda t: t.first)


def test_holds_asks_for_the_same_kind() -> None:
    tasks = [Task(0, 4, 1, 0), Task(4, 4, 1, 0)]
    assert ranges.holds(tasks, Task(1, 3, 1, 0))
    assert not ranges.holds(tasks, Task(1, 3, 0, 0))
    assert not ranges.holds(tasks, Task(1, 3, 1, 1))
    assert not ranges.holds(tasks, Task(3, 2, 1, 0)), "it crosses a boundary"


def test_halve() -> None:
    assert ranges.halve(Task(5, 5, 2, 1)) == (Task(5, 2, 2, 1), Task(7, 3, 2, 1))
    assert ranges.halve(Task(5, 1)) == (Task(5, 1),)


def test_partitions() -> None:
    assert ranges.partitions([Task(0, 2), Task(2, 1)], 3)
    assert ranges.partitions([], 0)
    assert not ranges.partitions([Task(0, 2), Task(2, 1)], 4)
    assert not ranges.partitions([Task(0, 2), Task(1, 2)], 3)
    assert not ranges.partitions([Task(2, 1), Task(0, 2)], 3)
