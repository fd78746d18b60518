"""The network adapter: libp2p moves bytes, and no guarantee of ours rests on it (docs/architecture.md).

`multiaddrs`, `ticket`, `psk` and `identity` are light; everything else loads libp2p.
"""
