"""One of three voters in a process of its own: the real network, the real disk and `Consensus`, without the services
around them. Started by `benchmarks.commits`; the one that leads first measures, and prints what it found.

On stdout, a line each: its peer ID and addresses, and the result, from the leader. On stdin: those of all; the end.
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import trio

from mesh.consensus import Consensus
from mesh.disk.log import RaftDisk
from mesh.net.host import open_network
from mesh.net.identity import open_identity
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.state.snapshot import encode_state
from protocols.commands import Found, Register
from protocols.ids import PeerId
from protocols.raft import Configuration, Snapshot

MESH = "1000.benchmark"
SINGLE = 300
"""Commands one after the other."""
PROPOSERS = 64
"""At once, each one command after the other."""
BATCH = 64
"""Commands in one `propose_many`."""
SECONDS = 4.0
"""Of each measurement of a rate."""
WORKERS = 200


def command(number: int) -> Register:
    """A small command that changes the state."""
    return Register(PeerId(f"12D3KooW{number % WORKERS:044d}"), f"worker-{number % WORKERS}", number + 1, 4)


async def single(member: Consensus) -> list[float]:
    found = []
    for number in range(SINGLE):
        start = time.perf_counter()
        await member.propose(command(number))
        found.append(time.perf_counter() - start)
        await trio.sleep(0.005)
    return found


async def rate(member: Consensus, proposers: int, batch: int) -> float:
    """Commands a second."""
    done = 0
    start = time.perf_counter()

    async def work(first: int) -> None:
        nonlocal done
        number = first
        while time.perf_counter() - start < SECONDS:
            await member.propose_many([command(number + offset) for offset in range(batch)])
            number += batch
            done += batch

    async with trio.open_nursery() as nursery:
        for proposer in range(proposers):
            nursery.start_soon(work, proposer)
    return done / (time.perf_counter() - start)


async def measure(member: Consensus) -> dict[str, Any]:
    term = member.term
    await trio.sleep(1.0)
    processor = time.process_time()
    alone = await single(member)
    found = {
        "single": alone,
        "processor": (time.process_time() - processor) / len(alone),
        "concurrent": await rate(member, PROPOSERS, 1),
        "batched": await rate(member, 4, BATCH),
    }
    return {**found, "terms": member.term - term, "term": member.term}


async def main(home: Path) -> None:
    with open_identity(home) as identity, RaftDisk(home / "log.sqlite") as disk:
        options: dict[str, Any] = {"swarm_key": bytes(32), "listen": ("/ip4/127.0.0.1/tcp/0",), "mdns": False}
        async with open_network(identity=identity, **options) as network:
            print(json.dumps([network.peer_id, network.addresses()]), flush=True)
            others = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
            state = CoordinatorState()
            apply(state, 1, Found(MESH))
            voters = Configuration(voters=tuple(sorted(PeerId(peer) for peer, _ in others)))
            await disk.save_snapshot(Snapshot(1, 1, voters, encode_state(state)))
            member = Consensus(mesh=MESH, network=network, disk=disk, rng=random.Random(network.peer_id))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(member.run)
                for peer, addresses in others:
                    if peer != network.peer_id:
                        network.know(PeerId(peer), tuple(addresses))

                async def lead() -> None:
                    print(json.dumps(await measure(member)), flush=True)

                nursery.start_soon(member.lead, lead)
                await trio.to_thread.run_sync(sys.stdin.readline)  # the end
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
