"""What a test that needs several hosts is told of them."""

from mesh.coordinator.gangs import ADDRESSES_MAX, addresses, hosts_of
from mesh.state.model import CoordinatorState, Lease, Worker
from protocols.ids import LeaseId, PeerId, RunId
from protocols.manifests import Companion, Device
from protocols.work import GangHost


def test_addresses_are_those_that_others_reach() -> None:
    there = ("/ip4/10.0.0.5/tcp/4001/p2p/12D3", "/ip6/fd00::5/tcp/4001/p2p/12D3", "/ip4/10.0.0.5/tcp/4002/p2p/12D3")
    assert addresses((*there, "/ip4/127.0.0.1/tcp/4001", "/dns4/lab/tcp/1", "junk")) == ("10.0.0.5", "fd00::5")
    assert addresses(("/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001")) == ("127.0.0.1", "::1"), "all on one host"
    assert len(addresses([f"/ip4/10.0.0.{i}/tcp/1" for i in range(99)])) == ADDRESSES_MAX


def test_a_host_of_which_nothing_is_known_is_named() -> None:
    state = CoordinatorState()
    for name in "ab":
        state.workers[PeerId(name)] = Worker(PeerId(name), f"lab-{name}", 1, 1, 1)
    lease = Lease(LeaseId(1), RunId(1), PeerId("a"), 1, [])
    assert hosts_of(state, lease, {}) == ()
    lease.companions = (Companion(PeerId("b"), 1, (Device("g1"),)),)
    assert hosts_of(state, lease, {}) == (
        GangHost(PeerId("a"), "lab-a", ()),
        GangHost(PeerId("b"), "lab-b", (), (Device("g1"),)),
    )
