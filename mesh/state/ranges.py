"""Sets of tests as sorted lists of disjoint tasks.

A run of a million tests is a few thousand tasks, so everything that the scheduler repeats walks tasks, never tests.
Invariant of every list here: sorted by `first`, no two tasks share a test. Neighbours are never merged: where a task
ends is where a scope, a requirement or an earlier split ends. Rejected: a set of indexes a run (60 bytes a test, and
no order to iterate in), a bitmap (loses scope and losses).
"""

import bisect
import itertools
import typing
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from protocols.commands import TaskRange

Test = TypeVar("Test", bound=int)


JOURNAL_MAX = 16_384
"""Changes of a `TaskList` that can be asked for."""


class TaskList(list[TaskRange]):
    """A list of tasks that remembers how it changed lately, for those who keep an order of their own of it.

    Changed by `insert`, by slices and by `clear` alone.
    """

    __slots__ = ("_journal", "version")

    def __init__(self, tasks: Iterable[TaskRange] = ()) -> None:
        super().__init__(tasks)
        self.version = 0
        self._journal: deque[tuple[bool, TaskRange]] = deque(maxlen=JOURNAL_MAX)

    def since(self, version: int) -> list[tuple[bool, TaskRange]] | None:
        """(added, task) of each change since then, in order; None if that is too long ago."""
        count = self.version - version
        if not 0 <= count <= len(self._journal):
            return None
        return list(itertools.islice(reversed(self._journal), count))[::-1]

    def insert(self, index: typing.SupportsIndex, task: TaskRange) -> None:
        super().insert(index, task)
        self._note(True, (task,))

    def __setitem__(self, place: typing.Any, tasks: typing.Any) -> None:
        before, after = self[place], list(tasks)
        super().__setitem__(place, after)
        self._note(False, before)
        self._note(True, after)

    def clear(self) -> None:
        self._note(False, self)
        super().clear()

    def _note(self, added: bool, tasks: Sequence[TaskRange]) -> None:
        self._journal.extend((added, task) for task in tasks)
        self.version += len(tasks)


def _first(task: TaskRange) -> int:
    return task.first


def end(task: TaskRange) -> int:
    return task.first + task.count


def locate(tasks: Sequence[TaskRange], test: int) -> int | None:
    """The position of the task that holds `test`."""
    position = bisect.bisect_right(tasks, test, key=_first) - 1
    return position if position >= 0 and test < end(tasks[position]) else None


def holds(tasks: Sequence[TaskRange], piece: TaskRange) -> bool:
    """Whether `piece` is a part of one of `tasks`, with the same requirement and losses."""
    position = locate(tasks, piece.first)
    if position is None:
        return False
    task = tasks[position]
    return end(piece) <= end(task) and (piece.requirement, piece.losses) == (task.requirement, task.losses)


def within(tasks: Sequence[TaskRange], tests: Sequence[Test]) -> list[Test]:
    """Those of `tests` (sorted, unique) that one of `tasks` holds."""
    found: list[Test] = []
    position = 0
    for task in tasks:
        start = bisect.bisect_left(tests, task.first, position)
        position = bisect.bisect_left(tests, end(task), start)
        found += tests[start:position]
    return found


def insert(tasks: list[TaskRange], task: TaskRange) -> None:
    bisect.insort(tasks, task, key=_first)


def cut_out(tasks: list[TaskRange], piece: TaskRange) -> None:
    """Remove `piece`, which one of `tasks` holds; what stood before and after it stays."""
    position = locate(tasks, piece.first)
    assert position is not None, "the piece is not there"
    task = tasks[position]
    rest = []
    if task.first < piece.first:
        rest.append(replace(task, count=piece.first - task.first))
    if end(piece) < end(task):
        rest.append(replace(task, first=end(piece), count=end(task) - end(piece)))
    tasks[position : position + 1] = rest


def subtract(tasks: Sequence[TaskRange], tests: Sequence[int]) -> tuple[list[TaskRange], list[TaskRange]]:
    """`tasks` without `tests` (sorted, unique, all of them in `tasks`), and what was taken, in contiguous pieces."""
    left: list[TaskRange] = []
    taken: list[TaskRange] = []
    position = 0
    for task in tasks:
        start, stop = task.first, end(task)
        while position < len(tests) and tests[position] < stop:
            first = tests[position]
            last = first + 1
            position += 1
            while position < len(tests) and tests[position] == last and last < stop:
                last += 1
                position += 1
            if start < first:
                left.append(replace(task, first=start, count=first - start))
            taken.append(replace(task, first=first, count=last - first))
            start = last
        if start == task.first:
            left.append(task)
        elif start < stop:
            left.append(replace(task, first=start, count=stop - start))
    return left, taken


def size(tasks: Iterable[TaskRange]) -> int:
    """Tests in all of `tasks`."""
    return sum(task.count for task in tasks)


def disjoint(tasks: Sequence[TaskRange]) -> bool:
    """Whether `tasks`, sorted by `first`, share no test."""
    return all(end(a) <= b.first for a, b in itertools.pairwise(tasks))


def partitions(tasks: Sequence[TaskRange], tests: int) -> bool:
    """Whether `tasks`, in their order, are exactly 0..tests."""
    position = 0
    for task in tasks:
        if task.first != position:
            return False
        position = end(task)
    return position == tests


def halve(task: TaskRange) -> tuple[TaskRange, ...]:
    """Both halves of a task; a single test stays what it is."""
    if task.count == 1:
        return (task,)
    middle = task.count // 2
    return (
        replace(task, count=middle),
        replace(task, first=task.first + middle, count=task.count - middle),
    )
