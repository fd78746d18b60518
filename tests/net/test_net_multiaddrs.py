import pytest

from mesh.net.multiaddrs import check_peer_id, parse_listen_address, parse_peer_address, split_address
from protocols.errors import UsageError

PEER = "12D3KooWGKpUCcDq5rNABuEvxE1N4awkcVx1jaF6aMGohJo12kWZ"
RSA_PEER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}", ("ip4", "10.0.0.1", 4001, PEER)),
        (f"/ip6/fd00::1/tcp/1/p2p/{PEER}", ("ip6", "fd00::1", 1, PEER)),
        (f"/dns4/box-1.lab/tcp/65535/p2p/{PEER}", ("dns4", "box-1.lab", 65535, PEER)),
        ("/ip4/0.0.0.0/tcp/0", ("ip4", "0.0.0.0", 0, None)),
    ],
)
def test_splits_what_we_speak(text, expected):
    assert split_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "banana",
        "10.0.0.1:4001",
        "/ip4/10.0.0.1/udp/4001/quic-v1",
        "/ip4/10.0.0.1/tcp/4001/ws",
        "/ip4/10.0.0.256/tcp/4001",
        "/ip4/10.0.0.1/tcp/65536",
        "/ip4/10.0.0.1/tcp/-1",
        "/ip4/10.0.0.1/tcp/²",
        "/ip4/10.0.0.1/tcp/",
        "/ip6/fe80::1%eth0/tcp/1",
        "/dns4/-box/tcp/1",
        f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER[:-1]}",
        "/ip4/10.0.0.1/tcp/4001/p2p/0OIl",
        f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER} ",
        f"ip4/10.0.0.1/tcp/4001/p2p/{PEER}",
        "/ip4/10.0.0.1/tcp/4001/p2p/" + "1" * 600,
    ],
)
def test_refuses_the_rest_in_one_sentence(text):
    with pytest.raises(UsageError) as error:
        split_address(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_a_peer_address_names_a_peer_and_a_port():
    with pytest.raises(UsageError, match="which peer"):
        parse_peer_address("/ip4/10.0.0.1/tcp/4001")
    with pytest.raises(UsageError, match="port 0"):
        parse_peer_address(f"/ip4/10.0.0.1/tcp/0/p2p/{PEER}")


def test_a_listen_address_is_numeric_and_names_no_peer():
    assert parse_listen_address("/ip6/::/tcp/0") == "/ip6/::/tcp/0"
    for text in ("/dns/box/tcp/1", f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}"):
        with pytest.raises(UsageError, match="listened on"):
            parse_listen_address(text)


def test_both_kinds_of_peer_id():
    assert check_peer_id(PEER) == PEER
    assert check_peer_id(RSA_PEER) == RSA_PEER
