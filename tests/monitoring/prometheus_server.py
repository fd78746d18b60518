"""A real Prometheus on loopback, with the example's configuration, for tests of what it makes of a node."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes.lab import PATIENCE, ROOT

EXAMPLES = ROOT / "examples" / "monitoring"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="no prometheus and promtool on the PATH: .ci/prometheus installs them where it can",
)


def promtool(*arguments: str, folder: Path = EXAMPLES, text: str = "") -> None:
    """Content, or the test fails with its words."""
    done = subprocess.run(["promtool", *arguments], cwd=folder, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr.strip() or "SUCCESS" in done.stderr + done.stdout, done.stderr


class Prometheus:
    """One that runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API."""
        url = f"http://{self._address()}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def value(self, query: str) -> float | None:
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def _address(self) -> str:
        """Where it listens: it says so in its log, having been given port 0."""
        for line in (self._folder / "prometheus.log").read_text().splitlines():
            if "Listening on" in line and "address=" in line:
                return line.rpartition("address=")[2].split()[0]
        raise FileNotFoundError("it does not listen yet")

    def until(self, query: str, wanted: float) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = self.value(query)
            except OSError:  # not up yet
                found = None
            if found == wanted:
                return
            assert time.monotonic() < deadline, f"{query} is {found}\n{(self._folder / 'prometheus.log').read_text()}"
            time.sleep(0.1)


@contextmanager
def prometheus(folder: Path, target: str, token: str) -> Iterator[Prometheus]:
    """The example's configuration, with another target and looking more often."""
    shutil.copy(EXAMPLES / "rules.yml", folder)
    (folder / "metrics.token").write_text(token)
    config = (EXAMPLES / "prometheus.yml").read_text()
    for example, here in (("scrape_interval: 5s", "scrape_interval: 1s"), ("- 127.0.0.1:9464", f"- {target}")):
        assert config.count(example) == 1
        config = config.replace(example, here)
    (folder / "prometheus.yml").write_text(config)
    promtool("check", "config", "prometheus.yml", folder=folder)
    command = [
        "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield Prometheus(folder)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)
