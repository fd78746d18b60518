import os
import stat
import subprocess
import sys

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from mesh.net.identity import open_identity, peer_id_of
from protocols.errors import HomeInUse, StorageError


def test_the_peer_id_is_libp2ps():
    seed = bytes(range(32))
    assert peer_id_of(seed) == ID.from_pubkey(create_new_key_pair(seed).public_key).to_base58()


def test_an_identity_is_made_once_and_kept_private(tmp_path):
    home = tmp_path / "deep" / "home"
    with open_identity(home) as identity:
        first = identity.peer_id
        assert peer_id_of(identity.seed) == first
    with open_identity(home) as identity:
        assert identity.peer_id == first
    assert stat.S_IMODE((home / "identity.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_second_opening_is_refused_by_name(tmp_path):
    with open_identity(tmp_path), pytest.raises(HomeInUse, match=f"{os.getpid()}.*--home"), open_identity(tmp_path):
        pass
    with open_identity(tmp_path):
        pass


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, pathlib, mesh.net.identity as i\n"
        "with i.open_identity(pathlib.Path(sys.argv[1])): print(1, flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"1\n"
        with pytest.raises(HomeInUse, match=str(holder.pid)), open_identity(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    with open_identity(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"junk", b"CAESQA==", b"CAESQ" + b"A" * 87 + b"="])
def test_a_damaged_key_is_no_new_identity(tmp_path, content):
    (tmp_path / "identity.key").write_bytes(content)
    with pytest.raises(StorageError, match=r"identity\.key is damaged"), open_identity(tmp_path):
        pass


def test_a_home_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"), open_identity(tmp_path / "file"):
        pass


def test_each_life_has_a_higher_number_whatever_the_clock_says(tmp_path):
    """Seen in `make chaos`: after all nodes were killed, one whose clock had gone back was never given work again."""
    hour = 3600 * 10**9
    numbers = []
    for now in (5 * hour, 4 * hour, 4 * hour, 7 * hour):
        with open_identity(tmp_path) as identity:
            numbers.append(identity.next_incarnation(now))
    assert numbers == [5 * hour, 5 * hour + 1, 5 * hour + 2, 7 * hour]
    (tmp_path / "incarnation").write_text("junk")
    with open_identity(tmp_path) as identity:
        assert identity.next_incarnation(hour) == hour


def test_the_port_is_remembered(tmp_path):
    with open_identity(tmp_path) as identity:
        assert identity.remembered_port() == 0
        identity.remember_port(4001)
        assert identity.remembered_port() == 4001
        for junk in ("", "x", "0", "70000", "-1"):
            (tmp_path / "port").write_text(junk)
            assert identity.remembered_port() == 0
