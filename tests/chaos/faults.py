"""The faults: each strikes a trial's mesh, lasts for a while, and is taken back before it returns.

Times are around the bounds that architecture.md gives ("What dies, and what happens"): some shorter, some longer.
"""

import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import psutil

from tests.chaos.trial import STOP_SECONDS_MAX, Trial

DISK_STEP_BYTES = 64 * 1024
HOUR = 3600.0
CLOCKS = (-30 * 24 * HOUR, -HOUR, -7.0, 7.0, HOUR, 30 * 24 * HOUR)
"""Seconds that a wall clock may be off."""


def _kill(role: str, trial: Trial) -> None:
    name = trial.pick(role)
    trial.tell(f"SIGKILL to {name}, the {role}")
    trial.kill(name)
    trial.wait(trial.rng.uniform(0.2, 6.0))
    trial.start(name)


def _kill_all(trial: Trial) -> None:
    trial.tell("SIGKILL to all nodes")
    trial.kill(*trial.names)
    trial.wait(trial.rng.uniform(0.0, 3.0))
    trial.start(*trial.rng.sample(trial.names, len(trial.names)))


def _stop(shortest: float, longest: float, trial: Trial) -> None:
    name = trial.pick(trial.rng.choice(("coordinator", "worker")))
    seconds = trial.rng.uniform(shortest, longest)
    trial.tell(f"SIGSTOP to {name} for {seconds:.1f} s")
    trial.up.discard(name)
    trial.made.nodes[name].send_signal(signal.SIGSTOP)
    trial.wait(seconds)
    trial.made.nodes[name].send_signal(signal.SIGCONT)
    trial.up.add(name)


def cut(role: str, shortest: float, longest: float, trial: Trial) -> None:
    name = trial.pick(role)
    seconds = trial.rng.uniform(shortest, longest)
    trial.tell(f"the link of {name}, the {role}, is down: {seconds:.1f} s")
    trial.up.discard(name)
    trial.lan.cut(name)
    trial.wait(seconds)
    trial.lan.join(name)
    trial.up.add(name)


def _one_way(trial: Trial) -> None:
    """What a node sends, or what it is sent, is swallowed; by one other node or by all."""
    name = trial.pick(trial.rng.choice(("coordinator", "worker")))
    others = trial.rng.choice([trial.others(name), [trial.rng.choice(trial.others(name))]])
    out = trial.rng.random() < 0.5
    seconds = trial.rng.uniform(3.0, 14.0)
    trial.tell(f"packets {'from' if out else 'to'} {name} {'to' if out else 'from'} {others} are lost: {seconds:.1f} s")
    trial.up.discard(name)
    _ways(trial, name, others, out, not out, loss=1.0)
    trial.wait(seconds)
    _ways(trial, name, others, out, not out)
    trial.up.add(name)


def _loss(trial: Trial) -> None:
    name, seconds = trial.pick(trial.rng.choice(("coordinator", "worker"))), trial.rng.uniform(4.0, 10.0)
    share = trial.rng.choice((0.02, 0.1, 0.25))
    trial.tell(f"{share:.0%} of the packets from and to {name} are lost: {seconds:.1f} s")
    _ways(trial, name, trial.others(name), True, True, loss=share)
    trial.wait(seconds)
    _ways(trial, name, trial.others(name), True, True)


def _delay(trial: Trial) -> None:
    name, seconds = trial.pick(trial.rng.choice(("coordinator", "worker"))), trial.rng.uniform(4.0, 10.0)
    delay = trial.rng.choice((0.02, 0.1, 0.4))
    both = trial.rng.random() < 0.5
    trial.tell(f"packets {'from and to' if both else 'from'} {name} take {delay} to {2 * delay} s: {seconds:.1f} s")
    _ways(trial, name, trial.others(name), True, both, delay=delay, jitter=delay)
    trial.wait(seconds)
    _ways(trial, name, trial.others(name), True, both)


def _ways(trial: Trial, name: str, others: list[str], out: bool, into: bool, **what: float) -> None:
    """Both directions between a node and others, or one; without more, they are as ever."""
    for other in others:
        seed = trial.rng.getrandbits(32)
        if out:
            trial.lan.way(name, other, seed=seed, **what)
        if into:
            trial.lan.way(other, name, seed=seed, **what)


def _disk_full(trial: Trial) -> None:
    """The node says so in one sentence and stops; with room again it is who it was."""
    name, process = trial.small, trial.made.nodes[trial.small]
    log = trial.made.folder / f"{name}.log"
    said_before = log.stat().st_size
    ballast = trial.made.home(name) / "ballast"
    trial.tell(f"the disk of {name} is full")
    with ballast.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(DISK_STEP_BYTES))
        except OSError:
            trial.up.discard(name)
    try:
        code = process.wait(STOP_SECONDS_MAX)
        said = log.read_bytes()[said_before:].decode(errors="replace")
        last = [line for line in said.splitlines() if line.strip()][-1:]
        trial.tell(f"{name} ended with code {code}: {''.join(last)}")
        if code == 0 or "Traceback" in said or not "".join(last).startswith("node.py: "):
            trial.wrong.append(f"{name}, whose disk was full, ended with code {code} and said {said[-2000:]!r}")
    except Exception as error:
        trial.wrong.append(f"{name} went on with a full disk: {error}")
        trial.kill(name)
    ballast.unlink()
    trial.start(name)
    trial.made.until(lambda: (trial.made.home(name) / "api.json").exists(), f"{name} listens again")
    if trial.made.peer(name) != trial.peers[name]:
        trial.wrong.append(f"{name} came back as another node")


def _clock(trial: Trial) -> None:
    """A node is killed, and started again with a wall clock that is off, or was mended."""
    name = trial.pick(trial.rng.choice(("coordinator", "worker")))
    trial.kill(name)
    _set_clock(trial, name)
    trial.wait(trial.rng.uniform(0.0, 2.0))
    trial.start(name)


def _clock_all(trial: Trial) -> None:
    """All at once, so that nobody is left who remembers anybody's earlier time."""
    trial.kill(*trial.names)
    for name in trial.names:
        _set_clock(trial, name)
    trial.start(*trial.names)


def _set_clock(trial: Trial, name: str) -> None:
    offset = trial.rng.choice(CLOCKS)
    trial.tell(f"{name} was killed and starts with a clock that is {offset:+g} s off")
    trial.made.variables[name]["MESH_CHAOS_CLOCK"] = str(offset)


def _kill_tests(trial: Trial) -> None:
    """Some or all of the processes in which a node runs tests."""
    name = trial.rng.choice(sorted(trial.up))
    found = psutil.Process(trial.made.nodes[name].pid).children(recursive=True)
    victims = trial.rng.sample(found, trial.rng.randint(1, len(found))) if found else []
    trial.tell(f"SIGKILL to {len(victims)} of {len(found)} test processes of {name}")
    trial.killed_tests = True
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue  # a test's process that had just ended
    trial.wait(1.0)


def _two_at_once(trial: Trial) -> None:
    """Two faults that overlap, at one node or at two: of three voters, the majority may be gone for a while."""
    kinds = trial.rng.sample(OVERLAPPING, 2)
    trial.tell(f"two at once: {' and '.join(kinds)}")
    other = replace(trial, rng=random.Random(trial.rng.getrandbits(32)))
    second = threading.Thread(target=_strike, args=(kinds[1], other), daemon=True)
    second.start()
    _strike(kinds[0], trial)
    second.join()


def _strike(kind: str, trial: Trial) -> None:
    try:
        KINDS[kind](trial)
    except Exception as error:
        trial.fail(f"{kind} could not be done: {error!r}")


OVERLAPPING = (
    "kill-coordinator",
    "kill-worker",
    "stop-short",
    "cut-coordinator",
    "cut-worker",
    "one-way",
    "loss",
    "delay",
)

KINDS: dict[str, Callable[[Trial], None]] = {
    "kill-coordinator": partial(_kill, "coordinator"),
    "kill-worker": partial(_kill, "worker"),
    "kill-submitter": partial(_kill, "submitter"),
    "kill-all": _kill_all,
    "stop-short": partial(_stop, 0.5, 3.0),
    "stop-long": partial(_stop, 11.0, 16.0),
    "cut-coordinator": partial(cut, "coordinator", 1.0, 15.0),
    "cut-worker": partial(cut, "worker", 1.0, 15.0),
    "cut-coordinator-20s": partial(cut, "coordinator", 20.0, 20.0),
    "one-way": _one_way,
    "loss": _loss,
    "delay": _delay,
    "disk-full": _disk_full,
    "clock": _clock,
    "clock-all": _clock_all,
    "kill-tests": _kill_tests,
    "two-at-once": _two_at_once,
}
