"""The answers of `mesh why`: what the scheduler knows of a run or a test, with the names that only manifests tell."""

import dataclasses
from collections.abc import Callable
from typing import Any

import trio

from mesh.coordinator.fleet import Fleet
from mesh.coordinator.history import History
from mesh.scheduler.feasibility import Reason
from mesh.scheduler.outlook import Outlook
from mesh.scheduler.queue import Standing
from mesh.scheduler.waiting import Holder, Waiting
from mesh.state import ranges
from mesh.state.model import Run, RunSummary
from mesh.views import documents
from protocols.errors import UsageError
from protocols.ids import PeerId, RunId


class WhyDesk:
    """Explains; asks nothing of anybody but the content."""

    def __init__(
        self,
        *,
        history: History,
        fleet: Fleet,
        outlook: Callable[[], Outlook],
        run: Callable[[RunId], Run | RunSummary],
        standing: Callable[[RunId], Standing | None],
    ) -> None:
        self._history = history
        self._fleet = fleet
        self._outlook = outlook
        self._run = run
        self._standing = standing

    async def why(self, target: str) -> dict[str, Any]:
        """`target`: a run, or a test's ID, then of the newest run that has it. `UsageError` for neither."""
        outlook = self._outlook()
        if target.isdecimal():
            run = self._run(RunId(int(target)))
            unfit = self._fleet.unfit_reasons(run.id, trio.current_time())
            told = []
            for one in outlook.of_run(run) if isinstance(run, Run) else ():
                told.append(await self._told(one))
                await trio.lowlevel.checkpoint()
            return documents.why_run(run, told, unfit, outlook.now, self._standing(run.id))
        for run_id in reversed(list(outlook.state.runs)):
            found = outlook.state.runs.get(run_id)
            if found is None or found.manifest is None:
                continue
            tests = (await self._history.manifest(found.manifest, tuple(found.workers))).tests
            index = next((index for index, test in enumerate(tests) if test.id == target), None)
            if index is not None:
                waits = outlook.of_test(found, index, [test.id for test in tests])
                told = [await self._told(waits)] if waits is not None else []
                holder = self._holder(outlook, found, index)
                return documents.why_test(found, target, index, told, holder, self._standing(found.id))
        raise UsageError(f"{target!r} is neither a run nor a test of one")

    async def _told(self, waiting: Waiting) -> Waiting:
        """With the locks that others hold among the reasons, in words."""
        held = [await self._held(holder) for holder in waiting.locks]
        return dataclasses.replace(waiting, reasons=(*held, *waiting.reasons))

    async def _held(self, holder: Holder) -> Reason:
        run = self._outlook().state.runs.get(holder.run)
        test = f"test {holder.test}"
        if run is not None and run.manifest is not None:
            test = (await self._history.manifest(run.manifest, tuple(run.workers))).tests[holder.test].id
        return Reason(PeerId(""), holder.lock, f"is held by run {holder.run}'s {test} on {holder.worker}")

    def _holder(self, outlook: Outlook, run: Run, index: int) -> str:
        for lease_id in run.leases:
            lease = outlook.state.leases[lease_id]
            if ranges.locate(lease.open, index) is not None:
                return outlook.state.workers[lease.worker].name
        return ""
