"""Slots of a run are numbered over all its workers, by the log alone."""

from scheduler_rig import Rig

from mesh.scheduler.numbering import numbers
from mesh.state.model import Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Grant


def test_no_two_slots_of_a_run_have_one_number() -> None:
    rig = Rig()
    peers = [rig.worker(name, slots=slots) for name, slots in (("a", 3), ("b", 1), ("c", 4))]
    run = rig.running([Task(0, 1), Task(1, 1), Task(2, 1)])
    assert numbers(rig.state, run, peers[2], rig.fleet) == (0, 8), "who comes first has the first numbers"
    for task, peer in enumerate((peers[2], peers[0], peers[1])):
        rig.accept(Grant(run.id, peer, 1, (Task(task, 1),)))
    found = {peer: numbers(rig.state, run, peer, rig.fleet) for peer in peers}
    assert found == {"c": (0, 8), "a": (4, 8), "b": (7, 8)}
    successor = decode_state(encode_state(rig.state))
    assert {peer: numbers(successor, successor.runs[run.id], peer, {}) for peer in peers} == found


def test_the_count_is_what_the_run_may_use_now() -> None:
    rig = Rig()
    peers = [rig.worker(name, slots=2) for name in "abc"]
    rig.see("b", alive=False)
    run = rig.running([Task(0, 2)])
    rig.accept(Grant(run.id, peers[0], 1, (Task(0, 1),)))
    assert numbers(rig.state, run, peers[0], rig.fleet) == (0, 4)
    few = rig.running([Task(0, 2)], nonce="few", worker_count=1)
    rig.accept(Grant(few.id, peers[2], 1, (Task(0, 1),)))
    assert numbers(rig.state, few, peers[2], rig.fleet) == (0, 2)
