"""node.py around the node: what it prints where, and how it words its end. The node itself is a stand-in."""

import errno
import json
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest

import node
from mesh.cli.logging_setup import JsonFormatter
from protocols.errors import HomeInUse, NoQuorum

SECRET = "mesh1secret"


def serving(monkeypatch: pytest.MonkeyPatch, serve: object) -> None:
    module = ModuleType("mesh.node")
    module.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mesh.node", module)
    monkeypatch.setattr("mesh.cli.logging_setup.logging.basicConfig", lambda **settings: None)


async def announcing(options, announce) -> int:
    (options.home / "api.json").write_text(
        json.dumps({"url": "http://127.0.0.1:1", "token": "t0ken", "peer": "p", "pid": node.os.getpid()})
    )
    facts = {"peer": "12D3", "listen": "/ip4/1.2.3.4/tcp/1", "home": "/h", "ticket": SECRET}
    for key, text in facts.items():
        announce(key, text)
    announce("dashboard", "http://127.0.0.1:1")
    announce("coordinator", "12D3")
    return 0


def test_a_pipe_gets_no_secret(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    serving(monkeypatch, announcing)
    assert node.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "peer: 12D3",
        "listening: /ip4/1.2.3.4/tcp/1",
        "home: /h",
        "dashboard: http://127.0.0.1:1",
        "coordinator: 12D3",
    ]


def test_a_terminal_gets_the_ticket_and_the_way_into_the_dashboard(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(monkeypatch, announcing)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert node.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"ticket: {SECRET}" in lines
    assert "dashboard: http://127.0.0.1:1/#token=t0ken" in lines


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HomeInUse("home /h is used by process 1"), 4),
        (ExceptionGroup("x", [ValueError("y"), ExceptionGroup("z", [NoQuorum("no majority")])]), 11),
        (ExceptionGroup("x", [OSError(errno.ENOSPC, "No space left on device", "/tmp/z")]), 3),
    ],
)
def test_an_error_of_ours_is_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    async def serve(options, announce) -> int:
        raise error

    serving(monkeypatch, serve)
    assert node.main([]) == code
    err = capsys.readouterr().err
    told = ("home /h is used by process 1", "no majority", "/tmp/z: No space left on device")
    assert err in [f"node.py: {sentence}\n" for sentence in told]


def test_a_bug_goes_to_the_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(options, announce) -> int:
        raise ZeroDivisionError("oops")

    serving(monkeypatch, serve)
    assert node.main([]) == 3
    assert "ZeroDivisionError" in caplog.text
    assert capsys.readouterr().out == ""


def test_json_logs_are_one_object_a_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("mesh.x", logging.ERROR, __file__, 1, "a %s\nb", ("c",), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    document = json.loads(line)
    assert (document["level"], document["logger"], document["message"]) == ("error", "mesh.x", "a c\nb")
    assert "ValueError" in document["exception"]
