"""A private, offline Kubo daemon on loopback, for tests of what a real one makes of our blocks."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def kubo_program() -> str | None:
    """The real thing: $MESH_KUBO, else `ipfs` on PATH, else where .ci/kubo puts it."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesh-ci" / "kubo" / "ipfs"
    named = os.environ.get("MESH_KUBO")
    if named:
        return shutil.which(named)
    return shutil.which("ipfs") or shutil.which(str(cached))


needs_kubo = pytest.mark.skipif(
    kubo_program() is None, reason="no Kubo: set MESH_KUBO, put ipfs on PATH, or run .ci/kubo (needs Go)"
)


class Kubo:
    """A daemon that runs."""

    def __init__(self, home: Path) -> None:
        self._environment = {**os.environ, "IPFS_PATH": str(home), "IPFS_TELEMETRY": "off", "LIBP2P_FORCE_PNET": "1"}
        self._home = home

    @property
    def api(self) -> str:
        return (self._home / "api").read_text().strip()

    @property
    def address(self) -> str:
        """Where its swarm listens, "/p2p/…" included."""
        return str(self.run("id", "-f", "<addrs>").split()[0])

    @property
    def peer(self) -> str:
        return self.run("id", "-f", "<id>").strip()

    def run(self, *arguments: str, data: bytes | None = None, timeout: float = 60) -> str:
        """The output of one `ipfs` command."""
        return self._run(arguments, data, timeout).decode()

    def export(self, cid: str) -> bytes:
        """The CAR file of all under a CID."""
        return self._run(("dag", "export", "--progress=false", cid), None, 60)

    def _run(self, arguments: tuple[str, ...], data: bytes | None, timeout: float) -> bytes:
        done = subprocess.run(
            [str(kubo_program()), *arguments],
            env=self._environment,
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    @property
    def blocks(self) -> Path:
        """Where a block is a file."""
        return self._home / "blocks"

    def kill(self) -> None:
        """End the running daemon as a power cut would."""
        self._daemon.kill()
        self._daemon.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The daemon takes requests and answers none."""
        self._daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemon.send_signal(signal.SIGCONT)

    @contextmanager
    def running(self) -> Iterator["Kubo"]:
        daemon = self._daemon = subprocess.Popen(
            [str(kubo_program()), "daemon"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert daemon.stdout is not None
            lines = []
            for line in daemon.stdout:
                lines.append(line)
                if line.startswith("Daemon is ready"):
                    break
            else:
                pytest.fail("Kubo did not start:\n" + "".join(lines))
            yield self
        finally:
            daemon.terminate()
            try:
                daemon.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.communicate()


def new_kubo(home: Path, swarm_key: bytes) -> Kubo:
    """A fresh repository in `home`, in the private network of this key."""
    kubo = Kubo(home)
    kubo.run("init", "-p", "test")
    kubo.run("bootstrap", "rm", "all")
    kubo.run("config", "--json", "Addresses.Swarm", '["/ip4/127.0.0.1/tcp/0"]')
    kubo.run("config", "Addresses.API", "/ip4/127.0.0.1/tcp/0")
    kubo.run("config", "Addresses.Gateway", "")
    kubo.run("config", "--json", "AutoConf.Enabled", "false")
    kubo.run("config", "Routing.Type", "none")
    kubo.run("config", "--json", "DNS.Resolvers", "{}")
    kubo.run("config", "--json", "Routing.DelegatedRouters", "[]")
    kubo.run("config", "--json", "Ipns.DelegatedPublishers", "[]")
    (home / "swarm.key").write_text(f"/key/swarm/psk/1.0.0/\n/base16/\n{swarm_key.hex()}\n")
    return kubo


def kubo_cid(kubo: Kubo, path: Path, executable: bool = False) -> str:
    """What Kubo calls a file or a tree, with its hidden files; its mode counts only for executables."""
    how = ["--preserve-mode"] if executable else ["--only-hash"]  # the two do not go together
    return kubo.run("add", "-Qr", "--hidden", "--cid-version=1", *how, str(path), timeout=300).strip()
