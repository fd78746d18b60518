"""The operating system: "os" ("linux", "darwin", "windows"), "os.version" (on Linux the distribution's), "hostname"."""

import platform
import socket
from pathlib import Path
from typing import Any


def probe(home: Path) -> dict[str, Any]:
    found = {
        "os": platform.system().lower(),
        "os.version": platform.release(),
        "os.kernel": platform.release(),
        "hostname": socket.gethostname(),
    }
    if found["os"] == "linux":
        try:
            release = platform.freedesktop_os_release()
        except OSError:  # a minimal image may lack the file; the kernel's version stands
            return found
        found["os.distribution"] = release.get("ID", "linux")
        found["os.version"] = release.get("VERSION_ID") or found["os.kernel"]
    elif found["os"] == "darwin":
        found["os.version"] = platform.mac_ver()[0]
    return found
