"""The start-up trick leaves no trace but time: what was left out is real for whoever imports it later."""

import subprocess
import sys

import pytest

LEAN = """
import sys
import mesh.net.host
heavy = {"aioquic", "wsproto", "libp2p.transport.quic", "libp2p.relay", "prometheus_client", "cffi"}
heavy = (heavy | {"cryptography.x509"}) & set(sys.modules)
assert not heavy, heavy
"""

LATER = """
import cffi
import prometheus_client
from cryptography import x509
from libp2p.transport.quic.config import QUICTransportConfig
from libp2p.relay.circuit_v2.nat import is_private_ip
assert QUICTransportConfig().max_concurrent_streams
assert is_private_ip("10.0.0.1") and not is_private_ip("8.8.8.8")
assert prometheus_client.Counter("x", "y").describe()
assert issubclass(x509.SubjectAlternativeName, x509.ExtensionType)
assert cffi.FFI().cast("int", 7) == 7
"""

NODE = """
import sys
import mesh.node
heavy = {"aioquic", "requests", "libp2p.transport.quic", "libp2p.relay", "prometheus_client", "cffi"}
heavy = (heavy | {"cryptography.x509"}) & set(sys.modules)
assert not heavy, heavy
"""

FIRST = """
import libp2p
assert libp2p.new_host().get_id()
import sys, mesh.net.host
assert "libp2p.transport.quic" in sys.modules
"""


@pytest.mark.parametrize("code", [LEAN + LATER, NODE, FIRST])
def test_what_is_left_out(code):
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
