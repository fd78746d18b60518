"""Completions as a snapshot holds them: numbers are packed arrays, little-endian, 13 bytes a test."""

import sys
from array import array

from mesh.state.model import Completion
from protocols.codec import message
from protocols.ids import Cid, LeaseId, PeerId


@message("s.completion")
class SavedCompletion:
    chunk: Cid
    worker: PeerId
    lease: LeaseId
    tests: bytes
    """uint32 each."""
    outcomes: bytes
    durations: bytes
    """int64 each, microseconds."""
    attempts: bytes


def save_completion(done: Completion) -> SavedCompletion:
    return SavedCompletion(
        chunk=done.chunk,
        worker=done.worker,
        lease=done.lease,
        tests=pack(done.tests),
        outcomes=done.outcomes,
        durations=pack(done.durations),
        attempts=done.attempts,
    )


def restore_completion(saved: SavedCompletion) -> Completion:
    return Completion(
        chunk=saved.chunk,
        worker=saved.worker,
        lease=saved.lease,
        tests=unpack("I", saved.tests),
        outcomes=saved.outcomes,
        durations=unpack("q", saved.durations),
        attempts=saved.attempts,
    )


def pack(numbers: "array[int]") -> bytes:
    """Little-endian."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def unpack(kind: str, data: bytes | bytearray) -> "array[int]":
    numbers: array[int] = array(kind)
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
