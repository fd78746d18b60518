"""Content: blocks, trees and how they travel. Everything that a run reads or leaves is IPFS content, named by its CID.

`unixfs` is pure (bytes in, blocks out); `blocks` keeps blocks on disk; `bitswap` moves them between nodes; `store` is
the `Content` port over these; `kubo` puts a Kubo daemon's repository in the place of `blocks`; `tree` says which
files make a bundle.
"""
