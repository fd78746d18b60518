"""Loads libp2p without the parts that we never use: more than half of its start-up time and 24 MB of memory.

Importing anything of libp2p 0.8.1 imports all of it: QUIC with aioquic, WebSocket, WebRTC, relays, its discovery (and
through them requests, OpenSSL, wsproto, dnspython). This module imports libp2p with empty stand-ins in those places,
whose names are classes that nothing makes an instance of, and then takes the stand-ins out of `sys.modules` again:
whoever imports such a part later gets the real one. What stays behind are names in signatures, `isinstance` and
`except`. To be imported before anything else of libp2p; where something was faster, the program works the same and
only starts later. Rejected: importing the submodules that we need one by one (they import each other through their
packages).
"""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence

UNUSED = (
    "aioquic",
    "cryptography.x509",  # certificates, of TLS alone
    "dns",  # names are resolved by the host (mesh/net/keeper.py)
    "libp2p.discovery",
    "libp2p.kad_dht",
    "libp2p.relay",
    "libp2p.security.insecure",
    "libp2p.security.secio",
    "libp2p.security.tls",
    "libp2p.transport.quic",
    "libp2p.transport.webrtc",
    "libp2p.transport.websocket",
    "libp2p.transport.webtransport",
    "prometheus_client",
)

ABSENT = "cffi"
"""Without it PyCryptodome loads by ctypes, as fast in use: cffi would parse C declarations at each start, for 0.1 s."""


class _StandIn(types.ModuleType):
    """A module in which every name is a class; an exception, so that it may stand in an `except`."""

    def __getattr__(self, name: str) -> type[Exception]:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Exception,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if any(name == unused or name.startswith(f"{unused}.") for unused in UNUSED):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def _load() -> None:
    if "libp2p" in sys.modules:
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    present = sys.modules.get(ABSENT)
    sys.modules[ABSENT] = None  # type: ignore[assignment]
    try:
        import libp2p.host.basic_host
        import libp2p.network.connection.swarm_connection
        import libp2p.pubsub.gossipsub
        import libp2p.transport.tcp.tcp  # noqa: F401
    finally:
        sys.meta_path.remove(finder)
        del sys.modules[ABSENT]
        if present is not None:
            sys.modules[ABSENT] = present
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn):
                del sys.modules[name]
                package, _, part = name.rpartition(".")
                if vars(sys.modules.get(package, module)).get(part) is module:
                    delattr(sys.modules[package], part)  # or `from package import part` would find it there


_load()
