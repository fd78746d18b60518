"""An Ethernet switch in user space: a process of ours, since a bridge loses nothing and not every kernel has netem.

    python -m tests.chaos.switch         commands as JSON lines on stdin, each answered by "ok"

    {"plug": NAME, "device": DEVICE}                    make the TAP device; the caller moves it into a namespace
    {"from": NAME, "to": NAME, "loss": P, "delay": S, "jitter": S, "seed": N}    what the way between two ports does
    {"carrier": NAME, "up": BOOL}                       pull the cable, or plug it in

Each direction of each pair of ports is a way of its own, so that loss (1.0: everything is swallowed), delay, and with
jitter reordering, may be one-way. TCP above it is the kernel's, and meets real packet loss. The process ends with its
stdin, and the devices with the process: whatever kills the caller, nothing is left.

Rejected: a relay of TCP connections, which can stall or reset but never lose a packet, and would have to pose as the
address that libp2p advertises.
"""

import fcntl
import heapq
import itertools
import json
import os
import random
import selectors
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any

TUNSETIFF = 0x400454CA
TUNSETCARRIER = 0x400454E2
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000

FRAME_BYTES_MAX = 2048
FRAMES_PER_TURN_MAX = 64
"""Read from one port before the others have their turn."""
FRAMES_WAITING_MAX = 8192
"""Delayed frames; more are lost, as in any switch."""


@dataclass
class Way:
    """From one port to another."""

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(0))


@dataclass
class Port:
    name: str
    tap: int
    up: bool = True


class Switch:
    def __init__(self) -> None:
        self._ports: dict[str, Port] = {}
        self._ways: dict[tuple[str, str], Way] = {}
        self._places: dict[bytes, str] = {}
        """MAC address -> port."""
        self._waiting: list[tuple[float, int, str, bytes]] = []
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
        self._commands = b""

    def run(self) -> None:
        """Until stdin ends."""
        while True:
            pause = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            for key, _ in self._selector.select(pause):
                if key.data is not None:
                    self._frames(key.data)
                elif not self._orders():
                    return
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(self._waiting)
                self._deliver(to, frame)

    def _orders(self) -> bool:
        """Obey what came on stdin; whether there will be more."""
        data = os.read(sys.stdin.fileno(), 65536)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
            print("ok", flush=True)
        return bool(data)

    def _obey(self, order: dict[str, Any]) -> None:
        if "plug" in order:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", order["device"].encode(), IFF_TAP | IFF_NO_PI))
            port = self._ports[order["plug"]] = Port(order["plug"], tap)
            self._selector.register(tap, selectors.EVENT_READ, port)
        elif "carrier" in order:
            port = self._ports[order["carrier"]]
            port.up = order["up"]
            fcntl.ioctl(port.tap, TUNSETCARRIER, struct.pack("i", int(port.up)))
        else:
            rng = random.Random(order["seed"])
            self._ways[order["from"], order["to"]] = Way(order["loss"], order["delay"], order["jitter"], rng)

    def _frames(self, port: Port) -> None:
        for _ in range(FRAMES_PER_TURN_MAX):
            try:
                frame = os.read(port.tap, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:  # its namespace is going
                self._selector.unregister(port.tap)
                return
            self._places[frame[6:12]] = port.name
            to = self._places.get(frame[:6])
            if to is not None:
                self._send(port.name, to, frame)
            elif frame[0] & 1:
                for other in self._ports:
                    self._send(port.name, other, frame)

    def _send(self, source: str, to: str, frame: bytes) -> None:
        if source == to or not self._ports[source].up:
            return
        way = self._ways.get((source, to))
        if way is None:
            self._deliver(to, frame)
        elif way.rng.random() >= way.loss:
            pause = way.delay + way.rng.random() * way.jitter
            if not pause:
                self._deliver(to, frame)
            elif len(self._waiting) < FRAMES_WAITING_MAX:
                heapq.heappush(self._waiting, (time.monotonic() + pause, next(self._numbers), to, frame))

    def _deliver(self, to: str, frame: bytes) -> None:
        if self._ports[to].up:
            try:
                os.write(self._ports[to].tap, frame)
            except OSError:
                return  # not up yet, or full: lost, as on a wire


if __name__ == "__main__":
    Switch().run()
