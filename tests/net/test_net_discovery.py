"""Local discovery with real multicast, under keys of this run's own (other test runs share the network)."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import trio
import trio.testing
from net_helpers import until
from zeroconf import BadTypeInNameException, EventLoopBlocked, ServiceInfo

from mesh.net import discovery
from mesh.net.psk import fingerprint, new_swarm_key

PEER = "12D3KooWGKpUCcDq5rNABuEvxE1N4awkcVx1jaF6aMGohJo12kWZ"


async def test_nodes_of_one_mesh_find_each_other_and_no_others(make_node):
    key = new_swarm_key()
    async with (
        make_node(key=key, listen=(), mdns=True) as a,
        make_node(key=key, listen=(), mdns=True) as b,
        make_node(key=new_swarm_key(), listen=(), mdns=True) as stranger,
    ):
        with trio.fail_after(10):
            await until(lambda: b.peer_id in a.links() and a.peer_id in b.links(), a, b)
        assert not stranger.links()
        assert not stranger._keeper._kept


async def test_a_node_that_comes_later_is_found(make_node):
    key = new_swarm_key()
    async with make_node(key=key, listen=(), mdns=True) as a, make_node(key=key, listen=(), mdns=True) as b:
        with trio.fail_after(10):
            await until(lambda: b.peer_id in a.links(), a)


def test_the_service_type_gives_nothing_of_the_key_away_and_fits_its_label():
    key = bytes(range(32))
    kind = discovery.service_type(fingerprint(key))
    assert key.hex()[:8] not in kind
    assert len(kind.split(".")[0]) <= 16  # underscore and 15 characters (RFC 6763, section 7.2)


async def test_a_network_without_multicast_costs_one_line(monkeypatch, caplog):
    def no_multicast(hosts):
        raise OSError(19, "No such device")

    monkeypatch.setattr(discovery, "_open", no_multicast)
    with caplog.at_level("INFO"), trio.fail_after(5):
        await discovery.discover(PEER, "0" * 16, [("ip4", "127.0.0.1")], 4001, lambda peer, addresses: None)
    assert [record.message for record in caplog.records if record.name == discovery.__name__] == [
        "no local discovery: this network has no multicast ([Errno 19] No such device)"
    ]


class FakeZeroconf:
    """Answers each name with a record of it, as zeroconf builds one; no multicast."""

    def __init__(self):
        self.refused = []
        self.closed = False

    def get_service_info(self, kind, name, timeout):
        try:
            return ServiceInfo(kind, name, port=4001, parsed_addresses=["192.0.2.1"])
        except BadTypeInNameException:
            self.refused.append(name)
            raise

    def close(self):
        self.closed = True


async def test_a_name_of_a_foreign_type_costs_nothing_but_itself(monkeypatch):
    """Any host of the link may answer `_mesh-….local. PTR evil.`: zeroconf's browser hands the alias on as it is."""
    zeroconf, seen = FakeZeroconf(), trio.Event()

    def answer(zeroconf, kind, info, relay):
        for name in ("evil.", f"{PEER}.{kind}"):
            relay(zeroconf, kind, name, SimpleNamespace(name="Added"))

    async def resolve(zeroconf, kind, name, found):
        await original(zeroconf, kind, name, found)
        done.append(name)
        if len(done) == 2:
            seen.set()

    done, found, original = [], {}, discovery._resolve
    monkeypatch.setattr(discovery, "_open", lambda hosts: zeroconf)
    monkeypatch.setattr(discovery, "_advertise_and_browse", answer)
    monkeypatch.setattr(discovery, "_resolve", resolve)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            hosts = [("ip4", "127.0.0.1")]
            nursery.start_soon(discovery.discover, "12D3KooWother", "0" * 16, hosts, 4001, found.__setitem__)
            await seen.wait()
            nursery.cancel_scope.cancel()
    assert zeroconf.refused == ["evil."]
    assert found == {PEER: [f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"]}
    assert zeroconf.closed


async def test_a_flood_of_names_takes_no_more_than_its_share_of_threads(monkeypatch):
    def answer(zeroconf, kind, info, relay):
        for number in range(100):
            relay(zeroconf, kind, f"{number}.{kind}", SimpleNamespace(name="Added"))

    async def resolve(zeroconf, kind, name, found):
        begun.append(name)
        (enough if len(begun) == discovery.RESOLVES_MAX else trio.Event()).set()
        await release.wait()
        (done if len(begun) == 100 else trio.Event()).set()

    begun, enough, release, done = [], trio.Event(), trio.Event(), trio.Event()
    monkeypatch.setattr(discovery, "_open", lambda hosts: FakeZeroconf())
    monkeypatch.setattr(discovery, "_advertise_and_browse", answer)
    monkeypatch.setattr(discovery, "_resolve", resolve)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(discovery.discover, PEER, "0" * 16, [("ip4", "127.0.0.1")], 4001, None)
            await enough.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert len(begun) == discovery.RESOLVES_MAX
            release.set()
            await done.wait()
            nursery.cancel_scope.cancel()


async def test_a_discovery_that_fails_costs_one_line(monkeypatch, caplog):
    def blocked(zeroconf, kind, info, relay):
        raise EventLoopBlocked

    zeroconf = FakeZeroconf()
    monkeypatch.setattr(discovery, "_open", lambda hosts: zeroconf)
    monkeypatch.setattr(discovery, "_advertise_and_browse", blocked)
    with caplog.at_level("INFO"), trio.fail_after(5):
        await discovery.discover(PEER, "0" * 16, [("ip4", "127.0.0.1")], 4001, lambda peer, addresses: None)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "local discovery failed: EventLoopBlocked: ")
    ]
    assert zeroconf.closed


NAMESPACE = """
import sys, pathlib, tempfile, trio
from mesh.net.host import open_network
from mesh.net.identity import open_identity

async def node(name, found):
    with open_identity(pathlib.Path(sys.argv[1]) / name) as identity:
        async with open_network(identity=identity, swarm_key=bytes(32)) as network:
            network.watch(lambda peer, connected: found.set())
            await found.wait()
            await trio.sleep(0.1)

async def main():
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(node, name, trio.Event())

trio.run(main)
"""


@pytest.mark.namespaces
def test_a_host_with_nothing_but_loopback(tmp_path):
    inside = f"ip link set lo up && exec {sys.executable} -c '{NAMESPACE}' {tmp_path}"
    try:
        able = subprocess.run(["unshare", "-rn", "ip", "link"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        able = False
    if not able:
        pytest.skip("no network namespaces here")
    subprocess.run(["unshare", "-rn", "sh", "-c", inside], check=True, timeout=60)
