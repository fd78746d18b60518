import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_secretbox

from mesh.net.psk import (
    XSalsa20,
    choose_swarm_key,
    create_private,
    fingerprint,
    format_swarm_key,
    new_swarm_key,
    parse_swarm_key,
    read_swarm_key,
)
from protocols.errors import StorageError, UsageError

KEY = bytes(range(32))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24), st.lists(st.binary(max_size=200)))
def test_the_cipher_is_libsodiums_xsalsa20_under_any_chunking(key, nonce, chunks):
    """secretbox XORs its message with the key stream from byte 32 on."""
    cipher = XSalsa20(key, nonce)
    cipher.xor(bytes(32))
    ours = b"".join(cipher.xor(chunk) for chunk in chunks)
    message = b"".join(chunks)
    assert ours == crypto_secretbox(message, nonce, key)[-len(message) :][: len(message)]


def test_key_file_round_trip():
    text = format_swarm_key(KEY)
    assert text == "/key/swarm/psk/1.0.0/\n/base16/\n" + KEY.hex() + "\n"
    assert parse_swarm_key(text) == KEY
    assert (
        parse_swarm_key(
            text.replace("\n", "\r\n").upper().replace("/KEY/SWARM/PSK", "/key/swarm/psk").replace("BASE", "base")
        )
        == KEY
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY.hex(),
        "/key/swarm/psk/2.0.0/\n/base16/\n" + KEY.hex(),
        "/key/swarm/psk/1.0.0/\n/base64/\n" + KEY.hex(),
        "/key/swarm/psk/1.0.0/\n/base16/\n" + KEY.hex()[:-2],
        "/key/swarm/psk/1.0.0/\n/base16/\n" + KEY.hex()[:-1] + "g",
        "/key/swarm/psk/1.0.0/\n/base16/\n" + KEY.hex() + "\nmore",
    ],
)
def test_bad_keys_are_refused_and_not_shown(text):
    with pytest.raises(UsageError) as error:
        parse_swarm_key(text)
    assert KEY.hex()[:16] not in str(error.value)


def test_fingerprint_tells_keys_apart_and_is_not_part_of_them():
    assert fingerprint(KEY) == fingerprint(KEY)
    assert fingerprint(KEY) != fingerprint(KEY[::-1])
    assert fingerprint(KEY) not in KEY.hex()


def test_choice_of_the_key(tmp_path):
    user = tmp_path / "config" / "mesh" / "swarm.key"
    homes = [tmp_path / name for name in ("a", "b", "c")]
    for home in homes:
        home.mkdir()
    shared = choose_swarm_key(homes[0], None, user)
    assert choose_swarm_key(homes[1], None, user) == shared
    assert read_swarm_key(homes[1] / "swarm.key") == shared
    ticket_key = new_swarm_key()
    assert choose_swarm_key(homes[1], ticket_key, user) == ticket_key
    assert choose_swarm_key(homes[1], None, user) == ticket_key
    assert read_swarm_key(user) == shared
    solitary = choose_swarm_key(homes[2], None, None)
    assert solitary not in (shared, ticket_key)
    assert choose_swarm_key(homes[2], None, user) == solitary
    for path in (user, homes[0] / "swarm.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(homes[0])) == ["swarm.key"]


def test_the_first_writer_wins(tmp_path):
    create_private(tmp_path / "x", "one")
    create_private(tmp_path / "x", "two")
    assert (tmp_path / "x").read_text() == "one"
    assert os.listdir(tmp_path) == ["x"]


def test_a_damaged_key_file_is_named(tmp_path):
    (tmp_path / "swarm.key").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"swarm\.key"):
        read_swarm_key(tmp_path / "swarm.key")


def test_a_home_that_can_not_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        create_private(tmp_path / "nowhere" / "x", "one")
