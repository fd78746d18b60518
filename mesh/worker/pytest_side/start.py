"""Entry point, run by its path: `python start.py SETTINGS CONTROL_FD`, or with the two pipe ends of a spawned slot.

The folder of this file must not stay on `sys.path`, where its modules would shadow the suite's; so the package is
loaded under a name of its own. The suite's root takes that place, as with `python -m pytest`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys


def load() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(
        "_mesh_pytest_side", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["_mesh_pytest_side"] = package
    spec.loader.exec_module(package)


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    sys.path[0] = settings["root"]
    load()
    from _mesh_pytest_side import processes, zygote

    fds = [int(text) for text in sys.argv[2:]]
    for fd in fds:
        os.set_inheritable(fd, False)
    processes.die_with_parent(settings["parent"] if len(fds) == 1 else None)
    if len(fds) == 1:
        return zygote.run_zygote(settings, fds[0], sys.argv[1])
    return zygote.run_spawned(settings, fds[0], fds[1], sys.argv[1])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
