"""Who a node is: an Ed25519 key in its home, and the lock that keeps a second process out of that home.

A peer ID is the identity of a Raft member, so two processes under one home would be one member with two memories: the
lock is taken before anything else is read. flock goes with the process, however it dies; the file itself stays.
The key is kept as libp2p's protobuf in base64 (what Kubo calls `PrivKey`). Light to import: no libp2p.
"""

import base64
import binascii
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import base58

from mesh.net.psk import replace_private
from protocols.errors import HomeInUse, StorageError
from protocols.ids import PeerId

IDENTITY_FILE = "identity.key"
LOCK_FILE = "lock"
PORT_FILE = "port"
INCARNATION_FILE = "incarnation"

_PRIVATE_HEADER = b"\x08\x01\x12\x40"  # KeyType Ed25519; Data of 64 bytes: seed and public key
_PUBLIC_HEADER = b"\x08\x01\x12\x20"
_IDENTITY_MULTIHASH = b"\x00\x24"


@dataclass(frozen=True, slots=True)
class Identity:
    """A locked home and the key in it. Valid inside `open_identity` only."""

    home: Path
    seed: bytes
    """The private key, 32 bytes."""
    peer_id: PeerId

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        from nacl.signing import SigningKey

        return SigningKey(self.seed).sign(data).signature

    def remembered_port(self) -> int:
        """The TCP port of the last run, 0 if there is none."""
        try:
            port = int((self.home / PORT_FILE).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0
        return port if 0 < port < 65536 else 0

    def remember_port(self, port: int) -> None:
        if port != self.remembered_port():
            replace_private(self.home / PORT_FILE, f"{port}\n")

    def next_incarnation(self, now: int) -> int:
        """The number of this life of the node: `now` (nanoseconds since the epoch), or more if a clock that was ahead
        gave an earlier life more. The log takes a lower number for an older process, and would never give it work."""
        path = self.home / INCARNATION_FILE
        try:
            last = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            last = 0
        incarnation = max(now, last + 1)
        replace_private(path, f"{incarnation}\n")
        return incarnation


@contextmanager
def open_identity(home: Path) -> Iterator[Identity]:
    """Make the home if it is new, lock it, and give its identity; `HomeInUse` if another process has it."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"{home} can't be used as a node's home: {error.strerror}") from error
    try:
        _lock(home, descriptor)
        seed = _load_or_create(home / IDENTITY_FILE)
        yield Identity(home, seed, peer_id_of(seed))
    finally:
        os.close(descriptor)


def peer_id_of(seed: bytes) -> PeerId:
    """The peer ID of an Ed25519 key: short keys are their own multihash (libp2p's peer-id specification)."""
    encoded = _IDENTITY_MULTIHASH + _PUBLIC_HEADER + _public_key(seed)
    return PeerId(base58.b58encode(encoded).decode())


def is_signed_by(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of the key which the peer ID is; False for an ID that is no Ed25519 key."""
    from nacl.exceptions import CryptoError
    from nacl.signing import VerifyKey

    try:
        encoded = base58.b58decode(peer)
        if not encoded.startswith(_IDENTITY_MULTIHASH + _PUBLIC_HEADER):
            return False
        VerifyKey(encoded[len(_IDENTITY_MULTIHASH + _PUBLIC_HEADER) :]).verify(data, signature)
    except (ValueError, TypeError, CryptoError):
        return False
    return True


def _lock(home: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = ""
        with suppress(OSError):
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        by = f"process {holder}" if holder.isdigit() else "another process"
        raise HomeInUse(f"{home} is in use by {by}; stop it, or give this node another --home") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _load_or_create(path: Path) -> bytes:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        seed = os.urandom(32)
        private = _PRIVATE_HEADER + seed + _public_key(seed)
        replace_private(path, base64.b64encode(private).decode() + "\n")
        return seed
    except OSError as error:
        raise StorageError(f"{path} can't be read: {error.strerror}") from error
    try:
        private = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        private = b""
    seed = private[4:36]
    if len(private) != 68 or private[:4] != _PRIVATE_HEADER or private[36:] != _public_key(seed):
        raise StorageError(
            f"{path} is damaged: it does not hold an Ed25519 key; restore it, or remove it for a new one"
        )
    return seed


def _public_key(seed: bytes) -> bytes:
    from nacl.signing import SigningKey  # 40 ms that a command without a node saves

    return bytes(SigningKey(seed).verify_key)
