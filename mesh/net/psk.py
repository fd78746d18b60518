"""The swarm key: who may connect (libp2p's "pre-shared key based private networks" specification, version 1.0.0).

Every byte of a connection is XORed with an XSalsa20 key stream, each direction under its own random 24-byte nonce,
which is sent first in clear. Without the key a peer reads noise, and what it sends decrypts to noise, so its
handshake fails. The key stream is not authenticated: that is noise's work, above it.

XSalsa20 is HSalsa20 (20 rounds of the core, no final addition) to derive a sub-key, and then Salsa20. PyCryptodome,
which libp2p brings, has Salsa20 as a stream with a position; PyNaCl has XSalsa20 only inside secretbox, without one.
A real Kubo with the same swarm.key connects; tests compare with libsodium's secretbox.
"""

import hashlib
import os
import secrets
from pathlib import Path

from protocols.errors import StorageError, UsageError

KEY_BYTES = 32
NONCE_BYTES = 24
SWARM_KEY_FILE = "swarm.key"

_HEADER = "/key/swarm/psk/1.0.0/"
_ENCODING = "/base16/"
_SIGMA = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_MASK = 0xFFFFFFFF


def new_swarm_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def format_swarm_key(key: bytes) -> str:
    """The text of a `swarm.key` file, as Kubo reads it."""
    return f"{_HEADER}\n{_ENCODING}\n{key.hex()}\n"


def parse_swarm_key(text: str) -> bytes:
    """The 32 bytes in a `swarm.key` file; `UsageError` says what is wrong with it (never what it holds)."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) != 3 or lines[0] != _HEADER or lines[1] != _ENCODING:
        raise UsageError(f"a swarm key has three lines: {_HEADER}, {_ENCODING} and 64 hexadecimal digits")
    try:
        key = bytes.fromhex(lines[2])
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or len(lines[2]) != 2 * KEY_BYTES:
        raise UsageError("the third line of a swarm key has 64 hexadecimal digits")
    return key


def fingerprint(key: bytes) -> str:
    """Sixteen hexadecimal digits that tell meshes apart and give nothing of the key away."""
    return hashlib.sha256(b"mesh swarm key fingerprint\0" + key).hexdigest()[:16]


def choose_swarm_key(home: Path, ticket_key: bytes | None, user_key: Path | None) -> bytes:
    """The key of the mesh that the node with this home belongs to; stored in HOME/swarm.key.

    A ticket's key wins; then the home's own; then the one that all nodes of this user share (`user_key`, made at first
    use), so that they find each other with nothing to set up. `user_key` None: a fresh key, for a mesh of its own.
    """
    own = home / SWARM_KEY_FILE
    if ticket_key is not None:
        if read_swarm_key(own) != ticket_key:
            replace_private(own, format_swarm_key(ticket_key))
        return ticket_key
    key = read_swarm_key(own)
    if key is not None:
        return key
    if user_key is None:
        key = new_swarm_key()
    else:
        user_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_private(user_key, format_swarm_key(new_swarm_key()))
        key = read_swarm_key(user_key)
        assert key is not None, "create_private leaves a file"
    replace_private(own, format_swarm_key(key))
    return key


def user_swarm_key() -> Path:
    """Where the key lies that all nodes of this user share unless told otherwise."""
    from platformdirs import user_config_dir  # not needed by nodes with a key of their own

    return Path(user_config_dir("mesh")) / SWARM_KEY_FILE


def read_swarm_key(path: Path) -> bytes | None:
    """The key in the file, None if there is no file."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} can't be read: {error.strerror}") from error
    try:
        return parse_swarm_key(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def create_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all; an existing one is left as it is."""
    temporary = _write_beside(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first: its file counts
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def replace_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all, in place of any earlier one."""
    temporary = _write_beside(path, text)
    try:
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} can't be written: {error.strerror}") from error


def _write_beside(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}") from error
    return temporary


class XSalsa20:
    """One direction's key stream, from its beginning on."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        from Crypto.Cipher import Salsa20  # only where a connection is made

        self._cipher = Salsa20.new(key=_hsalsa20(key, nonce[:16]), nonce=nonce[16:])

    def xor(self, data: bytes) -> bytes:
        return self._cipher.encrypt(data)


def _hsalsa20(key: bytes, block: bytes) -> bytes:
    """HSalsa20 (Bernstein, "Extending the Salsa20 nonce", section 2): 32 bytes from 32 of key and 16 of input."""
    k = [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]
    n = [int.from_bytes(block[i : i + 4], "little") for i in range(0, 16, 4)]
    x = [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]
    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)):
            _quarter(x, a, b, c, d)
        for a, b, c, d in ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            _quarter(x, a, b, c, d)
    return b"".join(x[i].to_bytes(4, "little") for i in (0, 5, 10, 15, 6, 7, 8, 9))


def _quarter(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, one, other, shift in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
        total = (x[one] + x[other]) & _MASK
        x[target] ^= ((total << shift) | (total >> (32 - shift))) & _MASK
