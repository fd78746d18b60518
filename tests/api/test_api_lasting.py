"""What of a node's API outlives its process: the token and the port, so that open pages and links go on."""

import socket
from pathlib import Path

import pytest
import trio

from mesh.api.lasting import PORT_FILE, TOKEN_FILE, lasting_token, remember_port, remembered_port
from mesh.api.server import serve_api
from protocols.errors import StorageError
from tests.api.fake_backend import PEER, FakeBackend, FakeContent


def test_a_home_keeps_its_token_to_itself(tmp_path: Path) -> None:
    token = lasting_token(tmp_path)
    assert lasting_token(tmp_path) == token
    assert (tmp_path / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert len(token) >= 32


def test_a_token_is_replaced_when_it_is_gone_damaged_or_known_to_others(tmp_path: Path) -> None:
    known = {lasting_token(tmp_path)}
    (tmp_path / TOKEN_FILE).unlink()
    known.add(lasting_token(tmp_path))
    (tmp_path / TOKEN_FILE).write_text("short\n")
    known.add(lasting_token(tmp_path))
    (tmp_path / TOKEN_FILE).write_bytes(b"\xff" * 40)
    known.add(lasting_token(tmp_path))
    (tmp_path / TOKEN_FILE).chmod(0o644)
    known.add(lasting_token(tmp_path))
    assert len(known) == 5


def test_a_home_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="api-token can't be written"):
        lasting_token(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "http"])
def test_a_port_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / PORT_FILE).write_text(text)
    assert remembered_port(tmp_path) == 0


async def url_of(home: Path, bind: str = "127.0.0.1:0") -> str:
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve_api, bind, "t0ken", FakeBackend(), FakeContent({}), PEER, home)
        nursery.cancel_scope.cancel()
    return url


async def test_the_same_home_listens_at_the_same_port(tmp_path: Path) -> None:
    url = await url_of(tmp_path)
    assert await url_of(tmp_path) == url


async def test_a_port_that_another_program_took_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        remember_port(tmp_path, port)
        url = await url_of(tmp_path)
    assert not url.endswith(f":{port}")
    assert remembered_port(tmp_path) == int(url.rpartition(":")[2])
