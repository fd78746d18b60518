"""Pictures of the mesh, written to files: the one module of the views that does I/O, and the way to matplotlib.

`draw_topology` and `draw_overview` block (a second or so): call them in a thread. The same document gives the same
bytes.
matplotlib's settings belong to the whole process, so drawing happens under a lock, from its own defaults and not
from a user's matplotlibrc, and leaves them as they were. No pyplot: it keeps figures and picks a GUI.

A file appears whole or not at all. What can't be written is told before anything is drawn.
"""

import io
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.views.topology import Topology, dot, topology
from protocols.errors import StorageError, UsageError

if TYPE_CHECKING:
    import networkx
    from matplotlib.figure import Figure

TOPOLOGY_SUFFIXES = (".png", ".svg", ".dot", ".graphml")
OVERVIEW_SUFFIXES = (".png", ".svg")

DOTS_PER_INCH = 160
PIXELS_MAX = 6000
"""Width and height of a PNG: hundreds of nodes are drawn with fewer dots per inch."""

_SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],  # comes with matplotlib; an SVG may be shown where it is not
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mesh",
    "text.parse_math": False,  # a name may hold dollar signs
    "axes.unicode_minus": False,
    "hatch.linewidth": 0.6,
}

_lock = threading.Lock()


def draw_topology(document: Mapping[str, Any], path: Path | str) -> None:
    """Write the topology document's picture to `path`: .png, .svg, .dot or .graphml. `UsageError` for a bad path."""
    suffix = _suffix(path, TOPOLOGY_SUFFIXES)
    graph = topology(document)
    if suffix == ".dot":
        content = dot(graph).encode()
    elif suffix == ".graphml":
        content = _graphml(graph)
    else:
        from mesh.views.topology_figure import draw

        content = _picture(lambda: draw(graph), suffix)
    _write(Path(path), content)


def draw_overview(document: Mapping[str, Any], path: Path | str) -> None:
    """Write the overview document's sheet to `path`: .png or .svg. `UsageError` for a bad path."""
    suffix = _suffix(path, OVERVIEW_SUFFIXES)
    from mesh.views.overview_figure import draw

    _write(Path(path), _picture(lambda: draw(document), suffix))


def networkx_graph(document: Mapping[str, Any]) -> "networkx.Graph":
    """The topology document as an undirected graph of peer IDs; `rtt` of an edge in seconds."""
    return _networkx(topology(document))


def _networkx(graph: Topology) -> "networkx.Graph":
    import networkx

    made = networkx.Graph(name=graph.mesh)
    for node in graph.nodes:
        made.add_node(
            node.peer,
            name=node.name,
            role=node.role,
            state=node.state,
            coordinator=node.coordinator,
            raft=node.raft,
            slots=node.slots,
            busy=node.busy,
        )
    for link in graph.links:
        made.add_edge(link.a, link.b, **({} if link.rtt is None else {"rtt": link.rtt}))
    return made


def _graphml(graph: Topology) -> bytes:
    import networkx

    text = "\n".join(networkx.generate_graphml(_networkx(graph)))
    return ('<?xml version="1.0" encoding="utf-8"?>\n' + text + "\n").encode()


def _picture(draw: Callable[[], "Figure"], suffix: str) -> bytes:
    buffer = io.BytesIO()
    with drawing():
        figure = draw()
        if suffix == ".svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "mesh"})
        else:
            dots = min(DOTS_PER_INCH, PIXELS_MAX / max(figure.get_size_inches()))
            figure.savefig(buffer, format="png", dpi=dots, metadata={"Software": "mesh"})
    return buffer.getvalue()


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib with our settings, for one thread at a time."""
    import matplotlib

    with _lock:
        defaults: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
        with matplotlib.rc_context({**defaults, **_SETTINGS}):
            yield


def _suffix(path: Path | str, known: tuple[str, ...]) -> str:
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in known:
        raise UsageError(f"{path}: a picture's name must end with {', '.join(known[:-1])} or {known[-1]}")
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give a file's name")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no directory {path.parent}")
    return suffix


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a reader, such as a browser that reloads it, never sees half a file."""
    beside = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StorageError(f"{path} could not be written: {error.strerror}") from None
