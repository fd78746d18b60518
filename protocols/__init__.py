"""The wire: every shape that leaves a process, as frozen dataclasses, and how they become bytes and back.

Pure: the standard library and cbor2 only.
"""
