"""What a node is told at its start. Light to import: a wrong flag is answered before libp2p is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from protocols.presence import Role


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The flags of `python node.py`, checked. Times in seconds."""

    home: Path
    role: Role = Role.AUTO
    listen: tuple[str, ...] = ()
    """Empty: TCP on every interface, at a port that the system picks and the home remembers."""
    join: tuple[str, ...] = ()
    """Tickets or multiaddrs."""
    expect: int = 1
    """Nodes to wait for before founding a mesh."""
    slots: int | None = None
    """Tests run at once; None: physical cores."""
    labels: Mapping[str, str] = field(default_factory=dict)
    mdns: bool = True
    ipfs: str = "embedded"
    """Or the multiaddr of a Kubo daemon's RPC."""
    api: str = "127.0.0.1:0"
    """HOST:PORT, or "off"."""
    heartbeat_interval: float = 1.0
    worker_timeout: float = 10.0
    replica_grace: float = 60.0
    """How long a node may be away before what it keeps is copied elsewhere."""
    alerts: Path | None = None
    """Rules and sinks of alerts; None: `alerts.toml` in the home, if there is one."""
    otlp: str | None = None
    """Where traces go: a collector's URL; empty: as the environment has it; None: nowhere."""
    solitary: bool = False
    """A mesh of one inside a command: founds at once, looks for nobody."""
