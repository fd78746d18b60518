"""What a worker has for tests that take more than a slot: processors, memory, disk, network and devices; and what of it
is taken.

A lease of such tests runs them one after another, so it takes once what each of them takes, for as long as it is open.
A test of several processors takes as many slots, so a worker is emptied for it by giving it nothing else. Devices are
chosen tightly: of those that will do, the one with the least memory, and for a share the one that others have already
begun, so that the large and the whole ones stay free for those who need them. The log refuses a device that is held
twice; the other amounts steer only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.scheduler import requirements
from mesh.scheduler.fleet import WorkerView
from mesh.state import holdings
from protocols.codec import Value
from protocols.errors import UsageError
from protocols.manifests import THOUSAND, Device, Needs

DEVICE_LABEL = "label.gpu"
"""Devices that no probe knows are named by `--label gpu=0,1`."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One device of a worker."""

    name: str
    """For CUDA_VISIBLE_DEVICES: its UUID, or its number."""
    memory: int
    capability: Value


@dataclass(slots=True)
class Shelf:
    """What open leases, and those of the plan, take of one worker."""

    leases: int = 0
    slots: int = 0
    memory: int = 0
    disk: int = 0
    network: int = 0
    devices: dict[str, int] = field(default_factory=dict)
    """Thousandths, by name."""

    def take(self, view: WorkerView, needs: Needs, devices: tuple[Device, ...]) -> None:
        self.leases += 1
        self.slots += slots_of(needs, view)
        self.memory += needs.memory
        self.disk += needs.disk
        self.network += needs.network
        for device in devices:
            self.devices[device.name] = self.devices.get(device.name, 0) + device.share

    def missing(self, view: WorkerView, needs: Needs, requires: tuple[str, ...]) -> str:
        """What of a capable worker is taken by others, as the end of a sentence; empty if a lease may have it now."""
        if self.slots + slots_of(needs, view) > max(1, view.slots):
            return "has no slots left for tests that take more than one"
        memory = view.capabilities.get("memory")
        if needs.memory and isinstance(memory, int) and self.memory + needs.memory > memory:
            return f"has {size_text(memory - self.memory)} left of its memory"
        for name, taken, more in (("disk", self.disk, needs.disk), ("network", self.network, needs.network)):
            if more and taken + more > THOUSAND:
                return f"has tests that keep its {name} busy"
        if self.choose(view, needs, requires) is None:
            return "has no gpu free"
        return ""

    def choose(self, view: WorkerView, needs: Needs, requires: tuple[str, ...]) -> tuple[Device, ...] | None:
        """Devices for a lease; None if those that would do are taken."""
        if not needs.gpu:
            return ()
        share = min(needs.gpu, THOUSAND)
        free = [(THOUSAND - self.devices.get(unit.name, 0), unit) for unit in fitting(view, requires)]
        free = sorted(((left, unit) for left, unit in free if left >= share), key=lambda one: _tightness(*one))
        count = max(1, needs.gpu // THOUSAND)
        return tuple(Device(unit.name, share) for _, unit in free[:count]) if len(free) >= count else None


def _tightness(left: int, unit: Unit) -> tuple[int, int, str]:
    return (left, unit.memory, unit.name)


def slots_of(needs: Needs, view: WorkerView) -> int:
    """Slots of the worker that a lease of such tests takes."""
    return holdings.slots_of(needs, view.slots)


def has_devices(view: WorkerView) -> bool:
    return bool(view.capabilities.get("gpu") or view.capabilities.get(DEVICE_LABEL))


def units(view: WorkerView) -> list[Unit]:
    """A worker's devices, in its own order."""
    found = view.capabilities.get("gpu")
    if isinstance(found, tuple) and found:
        return [_unit(index, device) for index, device in enumerate(found) if isinstance(device, Mapping)]
    labelled = view.capabilities.get(DEVICE_LABEL)
    names = [name.strip() for name in labelled.split(",")] if isinstance(labelled, str) else []
    return [Unit(name, 0, {"index": name}) for name in dict.fromkeys(names) if name]


def _unit(index: int, device: Mapping[str, Value]) -> Unit:
    memory = device.get("memory")
    name = device.get("uuid") or device.get("index", index)
    return Unit(str(name), memory if isinstance(memory, int) else 0, device)


def fitting(view: WorkerView, requires: tuple[str, ...]) -> list[Unit]:
    """Those of a worker's devices with which alone it would meet the requirements."""
    return [unit for unit in units(view) if not requires or _meets(view, unit, requires)]


def _meets(view: WorkerView, unit: Unit, requires: tuple[str, ...]) -> bool:
    alone = {**view.capabilities, "gpu": (unit.capability,)}
    try:
        return not any(requirements.unmet(requirements.parse(text), alone) for text in requires)
    except UsageError:
        return False


def lacks(view: WorkerView, needs: Needs, requires: tuple[str, ...]) -> str:
    """Why a worker could not run such a test even if it had nothing else to do; empty if it could."""
    threads = view.capabilities.get("cpu.threads")
    if isinstance(threads, int) and needs.cpu > max(threads, 1) * THOUSAND:
        return f"has {threads} processors, and {needs.cpu / THOUSAND:g} are needed"
    memory = view.capabilities.get("memory")
    if needs.memory and isinstance(memory, int) and needs.memory > memory:
        return f"has {size_text(memory)} of memory, and {size_text(needs.memory)} are needed"
    if needs.gpu:
        count = len(fitting(view, requires))
        if count * THOUSAND < needs.gpu:
            return f"has {count} gpus that would do, and {needs.gpu / THOUSAND:g} are needed"
    return ""


def describe(needs: Needs) -> str:
    """What such tests take on each host, in a few words."""
    parts = [f"{needs.cpu / THOUSAND:g} processors"] if needs.cpu > THOUSAND else []
    parts += [f"{size_text(needs.memory)} of memory"] if needs.memory else []
    parts += [f"{needs.gpu / THOUSAND:g} gpu"] if needs.gpu else []
    return ", ".join(parts)


def size_text(number: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"
