"""The fences of the replicated state and of the services, and what is to notice that one is gone."""

from tests.simulation.mutants import Mutant, Tests

ALERTS = Tests(("tests/state/test_state_alerts.py", "tests/alerting/test_alert_keeper.py"))
APPLY = Tests(("tests/state/test_state_apply.py",))
GANGS = Tests(("tests/state/test_state_gangs.py",))
MACHINE = Tests(("tests/scheduler/test_scheduler_machine.py",))
MESH = Tests(("tests/simulation/test_mesh_fences.py", "tests/simulation/test_mesh_services.py"))
REPORTS = Tests(("tests/coordinator/test_reports.py",))
LOOP = Tests(("tests/consensus/test_consensus.py",))

MUTANTS = (
    Mutant(
        "completions count tests that are not open",
        "mesh.state.apply",
        "counted = ranges.within(lease.open, sorted(place))",
        "counted = sorted(place)",
        (APPLY, MACHINE),
    ),
    Mutant(
        "an expired lease stays open",
        "mesh.state.apply",
        "    leasing.close(state, lease)\n    for task in taken:\n        for half in",
        "    for task in taken:\n        for half in",
        (APPLY, MACHINE),
    ),
    Mutant(
        "grant what is not pending",
        "mesh.state.leasing",
        "if not ranges.disjoint(ordered) or not all(ranges.holds(run.pending, task) for task in ordered):",
        "if False:",
        (APPLY, MACHINE),
    ),
    Mutant(
        "grant to an earlier process of a worker",
        "mesh.state.leasing",
        "if worker is None or worker.incarnation != incarnation:",
        "if worker is None:",
        (APPLY, MACHINE),
    ),
    Mutant(
        "a restarted worker keeps its leases",
        "mesh.state.apply",
        "            _expire_lease(state, state.leases[lease], worker)\n",
        "            pass\n",
        (APPLY, MACHINE),
    ),
    Mutant(
        "a restarted companion leaves the lease open",
        "mesh.state.apply",
        "        closed = tuple(sorted((*worker.leases, *worker.hosted)))\n",
        "        closed = tuple(worker.leases)\n",
        (GANGS, MACHINE),
    ),
    Mutant(
        "a slot that is kept for a test of several hosts is granted",
        "mesh.state.gangs",
        "    if worker.hosted and occupied(state, worker) + slots > worker.slots:\n",
        "    if False:\n",
        (GANGS,),
    ),
    Mutant(
        "a repeated submission is another run",
        "mesh.state.apply",
        "    if known is not None:\n        return Applied(run=known)",
        "    if False:\n        return Applied(run=known)",
        (APPLY,),
    ),
    Mutant(
        "a report takes for granted what an earlier coordinator was given",
        "mesh.coordinator.reports",
        "await search.those_here({**files, **material.evidence.files(run)})",
        "{**files, **material.evidence.files(run)}",
        (REPORTS, MESH),
    ),
    Mutant(
        "a result is forgotten before its Ack",
        "mesh.worker.agent",
        "            await self._deliver(result)\n            await self._outbox.remove(key)\n",
        "            await self._outbox.remove(key)\n            await self._deliver(result)\n",
        (MESH,),
    ),
    Mutant(
        "an inherited outbox is not offered",
        "mesh.worker.agent",
        "self._inherited = self._outbox.items()",
        "self._inherited = []",
        (MESH,),
    ),
    Mutant(
        "a completion before its chunk has two copies",
        "mesh.coordinator.taking",
        "    await replicas.secure(chunk, peer, nodes, run=run)\n",
        "",
        (MESH,),
    ),
    Mutant(
        "a new coordinator goes on with old timers",
        "mesh.coordinator.service",
        "        self._fleet.restart()\n",
        "",
        (MESH,),
    ),
    Mutant(
        "a worker in quarantine gets leases",
        "mesh.state.leasing",
        '    return f"worker {worker.name} {held}" if held else ""\n',
        '    return ""\n',
        (ALERTS,),
    ),
    Mutant(
        "an alert is raised beside the one that is active",
        "mesh.state.alerts",
        "        old = known.get(about)\n",
        "        old = None\n",
        (ALERTS,),
    ),
    Mutant(
        "that an alert was told is forgotten",
        "mesh.state.alerts",
        "replace(state.alerts[one], told=True)\n",
        "state.alerts[one]\n",
        (ALERTS,),
    ),
    Mutant(
        "the loop acknowledges before its save",
        "mesh.consensus",
        "        self._send(ready.messages)\n        if ready.snapshot",
        "        self._send(ready.messages + ready.messages_after_sync)\n        if ready.snapshot",
        (LOOP,),
    ),
    Mutant(
        "the coordinator serves before its no-op",
        "mesh.consensus",
        "return self._running and status.role is RoleName.LEADER and self._opened == status.term",
        "return self._running and status.role is RoleName.LEADER",
        (LOOP, MESH),
    ),
)
