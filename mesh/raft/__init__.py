"""Raft as a sans-IO core, after etcd/raft's Ready contract (Ongaro & Ousterhout 2014; Ongaro's thesis)."""
