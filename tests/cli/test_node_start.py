"""The real node in this process, while it starts."""

import signal
from pathlib import Path

import pytest
import trio

from mesh import node
from mesh.options import NodeOptions
from protocols.presence import Role


async def test_a_signal_before_the_api_is_up_ends_the_node_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed_at_its_start(*arguments: object, task_status: trio.TaskStatus[str]) -> None:
        await watching.wait()
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep_forever()

    def receiver(*signals: signal.Signals) -> object:
        watching.set()
        return opened(*signals)

    watching, opened = trio.Event(), trio.open_signal_receiver
    monkeypatch.setattr(trio, "open_signal_receiver", receiver)
    monkeypatch.setattr(node, "serve_api", killed_at_its_start)
    options = NodeOptions(tmp_path, Role.CLIENT, listen=("/ip4/127.0.0.1/tcp/0",), mdns=False)
    with trio.fail_after(20):
        assert await node.serve(options, lambda key, text: None) == 0
