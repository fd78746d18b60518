"""Pictures of the mesh, written to files: the one module of the views that does I/O, and the way to matplotlib.

What draws blocks (a second or so; a poster takes longer): call it in a thread. The same document gives the same
bytes.
matplotlib's settings belong to the whole process, so drawing happens under a lock, from its own defaults and not
from a user's matplotlibrc, and leaves them as they were. No pyplot: it keeps figures and picks a GUI.

A file appears whole or not at all. What can't be written is told before anything is drawn.
"""

import io
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.views.charts import WORKERS_MAX, WORKERS_POSTER_MAX
from mesh.views.pictures import HEAT_ROWS_MAX, HEAT_ROWS_POSTER_MAX, gantt, heat
from mesh.views.topology import Topology, dot, topology
from protocols.errors import StorageError, UsageError

if TYPE_CHECKING:
    import networkx
    from matplotlib.figure import Figure

TOPOLOGY_SUFFIXES = (".png", ".svg", ".dot", ".graphml")
OVERVIEW_SUFFIXES = (".png", ".svg")

DOTS_PER_INCH = 160
LAPTOP, POSTER = "laptop", "poster"
SCALES: Mapping[str, float] = {LAPTOP: 1.0, POSTER: 3.25}
"""A sheet 13 inches wide is 42 inches wide on a poster: an A0 in landscape, less a margin."""
PIXELS_MAX: Mapping[str, int] = {LAPTOP: 6000, POSTER: 9000}
"""Width and height of a PNG: hundreds of nodes are drawn with fewer dots per inch."""
SVG_HEAD_BYTES = 1024
"""In which an SVG says how large it is."""
_SVG_SIZE = re.compile(rb'\b(width|height)="([0-9.]+)pt"')

_SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],  # comes with matplotlib; an SVG may be shown where it is not
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mesh",
    "text.parse_math": False,  # a name may hold dollar signs
    "axes.unicode_minus": False,
    "hatch.linewidth": 0.6,
}

_lock = threading.Lock()


def draw_topology(document: Mapping[str, Any], path: Path | str, size: str = LAPTOP) -> None:
    """Write the topology document's picture to `path`: .png, .svg, .dot or .graphml. `UsageError` for a bad path."""
    suffix = _suffix(path, TOPOLOGY_SUFFIXES)
    graph = topology(document)
    if suffix == ".dot":
        content = dot(graph).encode()
    elif suffix == ".graphml":
        content = _graphml(graph)
    else:
        from mesh.views.topology_figure import draw

        content = _picture(lambda: draw(graph), suffix, size)
    _write(Path(path), content)


def draw_overview(document: Mapping[str, Any], path: Path | str, size: str = LAPTOP) -> None:
    """Write the overview document's sheet to `path`: .png or .svg. `UsageError` for a bad path."""
    suffix = _suffix(path, OVERVIEW_SUFFIXES)
    from mesh.views.overview_figure import draw

    most = WORKERS_MAX if size == LAPTOP else WORKERS_POSTER_MAX
    _write(Path(path), _picture(lambda: draw(document, most), suffix, size))


def draw_gantt(
    timeline: Mapping[str, Any], title: str, tests: Mapping[int, str], path: Path | str, size: str = LAPTOP
) -> None:
    """Write a run's timeline to `path`: .png or .svg. `tests`: names of those of its critical path, by index."""
    suffix = _suffix(path, OVERVIEW_SUFFIXES)
    from mesh.views.gantt_figure import draw

    run = gantt(timeline)
    _write(Path(path), _picture(lambda: draw(run, title, tests), suffix, size))


def draw_heat(
    verdicts: Iterable[Mapping[str, Any]], names: Mapping[str, str], title: str, path: Path | str, size: str = LAPTOP
) -> None:
    """Write how long tests take on each host to `path`: .png or .svg. `names`: of workers."""
    suffix = _suffix(path, OVERVIEW_SUFFIXES)
    from mesh.views.heat_figure import draw

    data = heat(verdicts, names, HEAT_ROWS_MAX if size == LAPTOP else HEAT_ROWS_POSTER_MAX)
    _write(Path(path), _picture(lambda: draw(data, title, SCALES[size]), suffix, size))


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


def _picture(draw: Callable[[], "Figure"], suffix: str, size: str) -> bytes:
    buffer = io.BytesIO()
    with drawing():
        figure = draw()
        if suffix == ".svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "mesh"})
            return _scaled(buffer.getvalue(), SCALES[size])
        dots = min(DOTS_PER_INCH * SCALES[size], PIXELS_MAX[size] / max(figure.get_size_inches()))
        figure.savefig(buffer, format="png", dpi=dots, metadata={"Software": "mesh"})
    return buffer.getvalue()


def _scaled(svg: bytes, scale: float) -> bytes:
    """The same drawing, larger: its own coordinates stay."""
    if scale == 1:
        return svg
    head, rest = svg[:SVG_HEAD_BYTES], svg[SVG_HEAD_BYTES:]
    return _SVG_SIZE.sub(lambda found: b'%s="%gpt"' % (found[1], float(found[2]) * scale), head, count=2) + rest


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
