"""What a report holds for those who check it: the signed chunks, where their records come from, the list of the tests;
and a seal over all of it.

Chunks and origins are DAG-CBOR blocks, in a directory of files. A block is kept by its hash, whatever codec its CID
names: so the report has each as a raw leaf, the very block that its CID as dag-cbor means. Whoever has the report has
them, any IPLD tool reads them, and `ipfs get` writes them as files. Rejected: dag-cbor entries in the directory (Kubo
can't write such a directory out); a DAG-CBOR root over the directory (two CIDs to pin, and the one that everybody
knows would be the unsigned one).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.content.unixfs.cid import as_raw
from mesh.content.unixfs.nodes import decode_dag_pb
from mesh.ports import Content, Network
from mesh.state.model import NO_WORKER, Completion, Run
from mesh.state.signing import signed_seal
from mesh.state.verify import SEAL_FILE
from protocols.codec import encode_block
from protocols.ids import Cid, PeerId
from protocols.manifests import Chunk, Seal

CHUNKS, ORIGINS = "chunks/", "origins/"


@dataclass(slots=True)
class Evidence:
    """What was found of the run's chunks."""

    chunks: dict[Cid, Chunk] = field(default_factory=dict)
    """Each without its records."""

    installed: dict[Cid, Cid] = field(default_factory=dict)
    """By origin, the list of the distributions that its worker had."""

    def add(self, done: Completion, chunk: Chunk) -> None:
        self.chunks[done.chunk] = Chunk((), (), chunk.run, chunk.lease, chunk.worker, chunk.origin)

    def ordered(self, run: Run) -> list[Cid]:
        """The chunks, each once, in the order of the log."""
        return [cid for cid in dict.fromkeys(done.chunk for done in (*run.chunks, *run.tries)) if cid in self.chunks]

    def origins(self, run: Run) -> list[Cid]:
        found = (self.chunks[cid].origin for cid in self.ordered(run))
        return list(dict.fromkeys(origin for origin in found if origin is not None))

    def files(self, run: Run) -> dict[str, Cid]:
        files = {f"{CHUNKS}{number:06d}.cbor": as_raw(cid) for number, cid in enumerate(self.ordered(run))}
        for number, origin in enumerate(self.origins(run)):
            files[f"{ORIGINS}{number}.cbor"] = as_raw(origin)
            installed = self.installed.get(origin)
            if installed is not None:
                files[f"{ORIGINS}{number}.txt"] = installed
        return files if run.manifest is None else {**files, "manifest.cbor": run.manifest}

    def signers(self, run: Run) -> list[PeerId]:
        """Who may have signed: the workers of the log's completions, and coordinators that ended tests themselves."""
        workers = {done.worker for done in (*run.chunks, *run.tries)}
        return sorted((workers | {chunk.worker for chunk in self.chunks.values() if not chunk.lease}) - {NO_WORKER})


async def seal(
    network: Network,
    content: Content,
    root: Cid,
    run: Run,
    evidence: Evidence,
    files: Iterable[str],
    now: float,
    names: Mapping[PeerId, str],
) -> Cid:
    """The report `root`, which has these files, again: with this node's signature over all that is in it."""
    kinds = Counter(name.partition("/")[0] + "/" for name in files if name.endswith(".cbor"))
    links, _ = decode_dag_pb(await content.get(root))
    entries = {link.name: link.cid for link in links}
    made = signed_seal(
        Seal(
            run.id,
            network.peer_id,
            now,
            tuple((peer, names.get(peer, "")) for peer in evidence.signers(run)),
            kinds[ORIGINS],
            kinds[CHUNKS],
            tuple(sorted(entries.items())),
        ),
        network.sign,
    )
    return await content.add_files({**entries, SEAL_FILE: encode_block(made)})
