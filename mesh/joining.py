"""Whom a node joins: the key of its mesh, and the nodes that it is told to connect to. Part of the composition."""

from mesh.net.host import MeshNetwork
from mesh.net.multiaddrs import parse_peer_address
from mesh.net.psk import choose_swarm_key, user_swarm_key
from mesh.net.ticket import Ticket, is_ticket
from mesh.options import NodeOptions
from protocols.errors import UsageError
from protocols.ids import PeerId


def swarm_key(options: NodeOptions, tickets: list[Ticket]) -> bytes:
    keys = {ticket.swarm_key for ticket in tickets}
    if len(keys) > 1:
        raise UsageError("the tickets given with --join are of different meshes")
    user_key = None if options.solitary else user_swarm_key()
    return choose_swarm_key(options.home, next(iter(keys), None), user_key)


def know(network: MeshNetwork, options: NodeOptions, tickets: list[Ticket]) -> tuple[PeerId, ...]:
    """Tell the network whom to connect to; who they are."""
    addresses: dict[PeerId, list[str]] = {}
    for ticket in tickets:
        for peer, found in ticket.peers().items():
            addresses.setdefault(peer, []).extend(found)
    for text in options.join:
        if not is_ticket(text):
            peer, _ = parse_peer_address(text)
            addresses.setdefault(peer, []).append(text)
    addresses.pop(network.peer_id, None)
    for peer, found in addresses.items():
        network.know(peer, found)
    return tuple(addresses)
