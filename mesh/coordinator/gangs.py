"""What a test that needs several hosts at once is told of them: names, and where they are, as presence has it."""

import ipaddress
from collections.abc import Mapping, Sequence

from mesh.ports import NodeView
from mesh.state import holdings
from mesh.state.model import CoordinatorState, Lease
from protocols.ids import PeerId
from protocols.work import GangHost

ADDRESSES_MAX = 16
"""Of one host."""


def hosts_of(state: CoordinatorState, lease: Lease, nodes: Mapping[PeerId, NodeView]) -> tuple[GangHost, ...]:
    """The lease's worker, and its companions; nothing if it has none."""
    if not lease.companions:
        return ()
    return tuple(
        GangHost(
            peer,
            state.workers[peer].name,
            addresses(nodes[peer].presence.addresses) if peer in nodes else (),
            holdings.devices_on(lease, peer),
        )
        for peer in lease.hosts
    )


def addresses(multiaddrs: Sequence[str]) -> tuple[str, ...]:
    """The IP addresses in these, in their order, each once; loopback ones only if there is nothing else."""
    found = dict.fromkeys(
        parts[2] for parts in (text.split("/") for text in multiaddrs) if len(parts) > 2 and parts[1] in ("ip4", "ip6")
    )
    away = [text for text in found if not ipaddress.ip_address(text).is_loopback]
    return tuple(away or found)[:ADDRESSES_MAX]
