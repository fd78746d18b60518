import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.net.ticket import PREFIX, TICKET_ADDRESSES_MAX, format_ticket, is_ticket, parse_ticket
from protocols.errors import UsageError

KEY = bytes(range(100, 132))
PEER = "12D3KooWGKpUCcDq5rNABuEvxE1N4awkcVx1jaF6aMGohJo12kWZ"
OTHER = "12D3KooWJWDWwXsQge6vhKVBj1kinYv8MM2KjoPNgxyB9Ubu7c91"
ADDRESSES = (
    f"/ip4/192.0.2.2/tcp/38323/p2p/{PEER}",
    f"/ip6/fd00::2/tcp/38323/p2p/{PEER}",
    f"/dns4/box.lab/tcp/4001/p2p/{OTHER}",
)


def test_round_trip():
    line = format_ticket(KEY, ADDRESSES)
    ticket = parse_ticket(line)
    assert ticket.swarm_key == KEY
    assert ticket.addresses == ADDRESSES
    assert ticket.peers() == {PEER: list(ADDRESSES[:2]), OTHER: [ADDRESSES[2]]}
    assert line.startswith(PREFIX)
    assert is_ticket(line)
    assert not is_ticket(ADDRESSES[0])
    assert line[len(PREFIX) :].replace("-", "").replace("_", "").isalnum()


def test_survives_a_paste_that_was_wrapped():
    line = format_ticket(KEY, ADDRESSES)
    assert parse_ticket(f"  {line[:60]}\n{line[60:]} \n") == parse_ticket(line)


def test_no_addresses_is_a_key_alone():
    assert parse_ticket(format_ticket(KEY, ())).addresses == ()


def test_takes_no_more_than_its_bound():
    many = [f"/ip4/10.0.0.1/tcp/{port}/p2p/{PEER}" for port in range(1, 100)]
    assert parse_ticket(format_ticket(KEY, many)).addresses == tuple(many[:TICKET_ADDRESSES_MAX])


def test_any_cut_is_noticed():
    line = format_ticket(KEY, ADDRESSES)
    for length in range(len(line)):
        with pytest.raises(UsageError):
            parse_ticket(line[:length])


@given(st.integers(min_value=len(PREFIX), max_value=200), st.sampled_from("ABCxyz019-_"))
def test_any_changed_character_is_noticed(position, character):
    line = format_ticket(KEY, ADDRESSES)
    if line[position] != character:
        with pytest.raises(UsageError):
            parse_ticket(line[:position] + character + line[position + 1 :])


@given(st.text(max_size=200), st.booleans())
def test_junk_is_a_usage_error_without_the_key(text, prefixed):
    with pytest.raises(UsageError) as error:
        parse_ticket((PREFIX if prefixed else "") + text)
    assert "\n" not in str(error.value)


def test_loads_no_libp2p():
    code = "import sys, mesh.net.ticket, mesh.net.identity; sys.exit(any(m in sys.modules for m in ('libp2p', 'trio')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
