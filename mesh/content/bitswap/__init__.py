"""Bitswap 1.2.0, spoken with other nodes of the mesh and with Kubo, on the library's streams.

The library's own client does not do: it answers on the asker's stream, which go peers do not read; it loads blocks
ahead of sending; it stores whatever it is sent; its fetches wait more than they work. Streams are one-way here as in
go: each side opens one to the other and keeps it.
"""
