"""What class of hardware a worker is: a verdict is reused only for the class that it was made on. Pure."""

from collections.abc import Mapping

from mesh.scheduler.facts import GPU
from mesh.scheduler.hopeless import PROBING
from protocols.codec import Value

UNKNOWN_HARDWARE = ""


def hardware_class(capabilities: Mapping[str, Value]) -> str:
    """The system, the machine, and the kinds of GPUs, such as "linux x86_64, NVIDIA H200"; empty while a node still
    looks for what it has. (The version of Python is a part of the environment.)"""
    if PROBING in capabilities or "os" not in capabilities:
        return UNKNOWN_HARDWARE
    devices = capabilities.get(GPU)
    found = devices if isinstance(devices, tuple | list) else ()
    kinds = {str(device.get("name", "")) for device in found if isinstance(device, Mapping)}
    return ", ".join([f"{capabilities['os']!s} {capabilities.get('arch', '')!s}", *sorted(kinds)])
