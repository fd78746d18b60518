"""The topology picture: one matplotlib figure, its size made for what it shows. Lengths in inches, type in points.

Colour is the role and nothing else; what Raft makes of a node is its ring, the coordinator has a star, a dead node
is grey with a cross. Links are grey, darker and wider when faster.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerBase, HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.text import Text
from matplotlib.transforms import Transform

from mesh.views import human
from mesh.views.drawing import FAINT, INK, SOFT, shown, text_width
from mesh.views.placement import (
    RING_NODES_MAX,
    Box,
    Placed,
    Point,
    Side,
    bend_links,
    curve,
    is_dense,
    place_labels,
    place_nodes,
)
from mesh.views.topology import DEAD_COLOUR, OTHER_COLOUR, ROLE_COLOURS, Topology, TopologyLink, TopologyNode, summary

_STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 15,
    "markerfacecolor": "#F0C419",
    "markeredgecolor": INK,
    "markeredgewidth": 0.8,
    "linestyle": "none",
}
_RAFT_STYLES: dict[str, Any] = {"voter": "-", "learner": (0, (2.2, 1.8))}

DISC = 0.25
RING = 0.315
NAME_SIZE, NAME_SIZE_CROWDED, DETAIL_SIZE, RTT_SIZE = 9.0, 8.0, 7.5, 7.5
NAME_CHARS, NAME_CHARS_CROWDED = 26, 16
SUMMARY_SIZE, LEGEND_SIZE = 9.0, 8.5
WIDTH_MIN, MARGIN = 8.0, 0.45
GAP = 0.09
"""Between a disc's ring and its label."""
LINE_HEIGHT, LEGEND_HEIGHT = 0.18, 0.25

Line = tuple[str, float, str, str]
"""Text, size, colour and weight."""
Speed = tuple[float, str, str, float, Any]

SPEEDS: tuple[Speed, ...] = (
    (0.001, "under 1 ms", "#3E4C59", 1.9, "-"),
    (0.010, "1 to 10 ms", "#7B8794", 1.5, "-"),
    (0.100, "10 to 100 ms", "#A5AFBA", 1.2, "-"),
    (float("inf"), "over 100 ms", "#A5AFBA", 1.2, (0, (4, 2.5))),
)
"""Upper bound in seconds, name, colour, width and dashes of a link."""


def draw(graph: Topology) -> Figure:
    """The figure; to be made and saved within `render.drawing()`."""
    labels = _labels(graph)
    nodes = place_nodes(graph, {peer: {side: _boxes(lines, side) for side in Side} for peer, lines in labels.items()})
    texts = {(link.a, link.b): human.milliseconds(link.rtt) for link in graph.links if link.rtt is not None}
    bent = bend_links(graph, nodes)
    spots = place_labels(graph, nodes, {ends: _label_size(text) for ends, text in texts.items()}, bent)

    left, right = _extent([(box.left, box.right) for node in nodes.values() for box in node.boxes])
    width = max(WIDTH_MIN, right - left + 2 * MARGIN)
    sentences = _sentences(graph, len(texts) - len(spots), width - 2 * MARGIN)
    legends = _legends(_node_handles(graph), _link_handles(graph), width - 2 * MARGIN)
    head = 0.85 + LINE_HEIGHT * len(sentences)
    foot = 0.45 + LEGEND_HEIGHT * len(legends)

    bottom, top = _extent([(box.bottom, box.top) for node in nodes.values() for box in node.boxes])
    height = top - bottom + head + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))  # over all of the figure, and counting in inches
    axes.set_xlim((left + right - width) / 2, (left + right + width) / 2)
    axes.set_ylim(bottom - foot, top + head)
    axes.set_axis_off()
    _draw_links(axes, graph, nodes, bent)
    for ends, spot in spots.items():
        _write_rtt(axes, texts[ends], spot)
    for node in graph.nodes:
        _draw_node(axes, node, nodes[node.peer].point)
        _write_label(axes, nodes[node.peer], labels[node.peer])
    _draw_head(figure, graph, sentences)
    _draw_foot(figure, legends)
    return figure


def _extent(spans: list[tuple[float, float]]) -> tuple[float, float]:
    return min((low for low, _ in spans), default=-0.5), max((high for _, high in spans), default=0.5)


def _labels(graph: Topology) -> dict[str, list[Line]]:
    """What stands beside each disc. In a crowd the peer is named only where names do not tell nodes apart."""
    crowded = len(graph.nodes) > RING_NODES_MAX
    names = human.distinct([node.name for node in graph.nodes], NAME_CHARS_CROWDED if crowded else NAME_CHARS)
    with_peer = not crowded or len(set(names)) < len(names)
    labels = {}
    for node, name in zip(graph.nodes, names, strict=True):
        colour, weight = SOFT if node.state == "dead" else INK, "bold" if node.coordinator else "normal"
        lines = [(shown(name), NAME_SIZE_CROWDED if crowded else NAME_SIZE, colour, weight)]
        detail = [human.peer(node.peer)] if with_peer else []
        if node.state != "alive":
            detail.append(shown(node.state))
        if detail:
            lines.append((" · ".join(detail), DETAIL_SIZE, SOFT, "normal"))
        labels[node.peer] = lines
    return labels


def _boxes(lines: list[Line], side: Side) -> tuple[Box, Box]:
    """Of the disc and of its label, around (0, 0)."""
    around, near = RING + 0.08, RING + GAP
    width = max(text_width(text, size, weight) for text, size, _, weight in lines) + 0.06
    height = sum(_line_height(size) for _, size, _, _ in lines)
    label = {
        Side.ABOVE: Box(-width / 2 - 0.05, near, width / 2 + 0.05, near + height + 0.04),
        Side.BELOW: Box(-width / 2 - 0.05, -near - height - 0.04, width / 2 + 0.05, -near),
        Side.LEFT: Box(-near - width - 0.05, -height / 2 - 0.02, -near, height / 2 + 0.02),
        Side.RIGHT: Box(near, -height / 2 - 0.02, near + width + 0.05, height / 2 + 0.02),
    }
    return Box(-around, -around, around, around), label[side]


def _line_height(size: float) -> float:
    return size * 1.3 / 72


def _label_size(text: str) -> Point:
    return (text_width(text, RTT_SIZE) + 0.1, _line_height(RTT_SIZE) + 0.03)


def _speed(link: TopologyLink) -> Speed:
    return next(speed for speed in SPEEDS if link.rtt is None or link.rtt < speed[0] or speed is SPEEDS[-1])


def _draw_links(
    axes: Axes, graph: Topology, nodes: Mapping[str, Placed], bent: Mapping[tuple[str, str], Point]
) -> None:
    """Where there are many, all but the coordinator's are faint: they show how dense the mesh is, no more."""
    coordinator = graph.coordinator
    many = is_dense(graph)
    groups: dict[tuple[Speed, bool], list[list[Point]]] = {}
    for link in graph.links:
        faint = many and not (coordinator is not None and coordinator.peer in (link.a, link.b))
        line = curve(nodes[link.a].point, nodes[link.b].point, bent.get((link.a, link.b)))
        groups.setdefault((_speed(link), faint), []).append(line)
    for ((_, _, colour, width, style), faint), segments in groups.items():
        axes.add_collection(
            LineCollection(
                segments,
                colors=colour,
                linewidths=width * (0.5 if faint else 1.0),
                linestyles=[style],
                alpha=max(0.1, min(0.7, 60 / len(graph.links))) if faint else 0.9,
                zorder=1 if faint else 2,
            ),
            autolim=False,
        )


def _write_rtt(axes: Axes, text: str, spot: Point) -> None:
    axes.text(
        *spot,
        text,
        fontsize=RTT_SIZE,
        color=SOFT,
        ha="center",
        va="center",
        zorder=3,
        gid="rtt",
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"},
    )


def _draw_node(axes: Axes, node: TopologyNode, point: Point) -> None:
    x, y = point
    dead = node.state == "dead"
    axes.add_patch(Circle(point, RING + 0.05, facecolor="white", edgecolor="none", zorder=4))
    if node.raft in _RAFT_STYLES:
        style = _RAFT_STYLES[node.raft]
        axes.add_patch(
            Circle(point, RING, fill=False, edgecolor=FAINT if dead else INK, linewidth=1.5, linestyle=style, zorder=5)
        )
    half = node.state in ("suspect", "draining")
    axes.add_patch(Circle(point, DISC, facecolor=node.colour, edgecolor="none", alpha=0.5 if half else 1.0, zorder=5))
    inside = "×" if dead else f"{node.busy}/{node.slots}" if node.slots else ""
    size = 15.0 if dead else 8.5 if len(inside) <= 5 else 6.5
    ink = INK if half else "white"
    axes.text(x, y, inside, fontsize=size, color=ink, weight="bold", ha="center", va="center_baseline", zorder=6)
    if node.coordinator:
        axes.plot([x + 0.235], [y + 0.235], zorder=7, **_STAR)


def _write_label(axes: Axes, node: Placed, lines: list[Line]) -> None:
    (x, y), side = node.point, node.side
    height = sum(_line_height(size) for _, size, _, _ in lines)
    align: Any = {Side.LEFT: "right", Side.RIGHT: "left"}.get(side, "center")
    x += {Side.LEFT: -RING - GAP, Side.RIGHT: RING + GAP}.get(side, 0.0)
    y += {Side.ABOVE: RING + GAP + height, Side.BELOW: -RING - GAP}.get(side, height / 2)
    for text, size, colour, weight in lines:
        y -= _line_height(size)
        axes.text(
            x,
            y + 0.24 * _line_height(size),
            text,
            fontsize=size,
            color=colour,
            weight=weight,
            ha=align,
            va="baseline",
            zorder=6,
            gid="label",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": (1, 1, 1, 0.82), "edgecolor": "none"},
        )


def _sentences(graph: Topology, unlabelled: int, width: float) -> list[str]:
    """What stands under the title, broken into lines of at most `width`."""
    parts = shown(summary(graph)).split(", ")
    rtts = [link.rtt for link in graph.links if link.rtt is not None]
    if rtts:
        parts.append(f"median round trip {human.milliseconds(median(rtts))}")
    if unlabelled:
        parts.append(f"{human.plural(unlabelled, 'round-trip time')} not written out")
    lines = [parts[0]]
    for part in parts[1:]:
        if text_width(f"{lines[-1]}, {part},", SUMMARY_SIZE) <= width:
            lines[-1] += f", {part}"
        else:
            lines[-1] += ","
            lines.append(part)
    return lines


def _draw_head(figure: Figure, graph: Topology, sentences: list[str]) -> None:
    width, height = figure.get_size_inches()
    title = f"Mesh {human.mesh(shown(graph.mesh))}" if graph.mesh else "Mesh"
    figure.text(MARGIN / width, 1 - 0.45 / height, title, fontsize=15, weight="bold", color=INK, va="baseline")
    for number, line in enumerate(sentences):
        y = 1 - (0.71 + LINE_HEIGHT * number) / height
        figure.text(MARGIN / width, y, line, fontsize=SUMMARY_SIZE, color=SOFT, va="baseline", gid="summary")


def _legends(nodes: list[Artist], links: list[Artist], width: float) -> list[list[Artist]]:
    """Those of the nodes and those of the links apart, unless that takes more rows."""
    together, apart = _rows([*nodes, *links], width), _rows(nodes, width) + _rows(links, width)
    return together if len(together) < len(apart) else apart


def _rows(handles: list[Artist], width: float) -> list[list[Artist]]:
    """The legend's entries, in as few rows as `width` allows."""
    rows: list[list[Artist]] = []
    room = 0.0
    for handle in handles:
        need = text_width(str(handle.get_label()), LEGEND_SIZE) + 0.5
        if not rows or need > room:
            rows.append([])
            room = width
        rows[-1].append(handle)
        room -= need
    return rows


def _draw_foot(figure: Figure, legends: list[list[Artist]]) -> None:
    _, height = figure.get_size_inches()
    for number, handles in enumerate(reversed(legends)):
        figure.legend(
            handles=handles,
            handler_map={Circle: HandlerPatch(patch_func=_round), Text: _Word()},
            loc="lower center",
            bbox_to_anchor=(0.5, (0.1 + LEGEND_HEIGHT * number) / height),
            ncol=len(handles),
            frameon=False,
            fontsize=LEGEND_SIZE,
            labelcolor=SOFT,
            handlelength=1.5,
            handletextpad=0.5,
            columnspacing=1.4,
            borderaxespad=0.0,
        )


def _node_handles(graph: Topology) -> list[Artist]:
    live = [node for node in graph.nodes if node.state != "dead"]
    roles = {node.role for node in live}
    handles: list[Artist] = [_disc(role, colour) for role, colour in ROLE_COLOURS.items() if role in roles]
    if roles - ROLE_COLOURS.keys():
        handles.append(_disc("other role", OTHER_COLOUR))
    if len(live) < len(graph.nodes):
        handles.append(_disc("dead", DEAD_COLOUR))
    if graph.coordinator:
        handles.append(Line2D([], [], label="coordinator now", **_STAR))
    handles += [
        _disc(raft, "none", edgecolor=INK, linewidth=1.5, linestyle=style)
        for raft, style in _RAFT_STYLES.items()
        if any(node.raft == raft for node in graph.nodes)
    ]
    if any(node.slots for node in live):
        handles.append(Text(text="n/m", label="n of m slots busy"))
    return handles


def _disc(label: str, colour: str, **style: Any) -> Circle:
    return Circle((0, 0), label=label, facecolor=colour, **{"edgecolor": "none", **style})


def _round(
    legend: Legend, orig_handle: Circle, xdescent: float, ydescent: float, width: float, height: float, fontsize: float
) -> Circle:
    """The legend shows a disc as a disc; its own way is a rectangle."""
    return Circle((width / 2 - xdescent, height / 2 - ydescent), height * 0.72)


class _Word(HandlerBase):
    """The legend shows a word as itself."""

    def create_artists(
        self,
        legend: Legend,
        orig_handle: Artist,
        xdescent: float,
        ydescent: float,
        width: float,
        height: float,
        fontsize: float,
        trans: Transform,
    ) -> Sequence[Artist]:
        assert isinstance(orig_handle, Text)
        style: dict[str, Any] = {"fontsize": 0.8 * fontsize, "color": SOFT, "weight": "bold", "transform": trans}
        return [Text(width / 2 - xdescent, -ydescent, orig_handle.get_text(), ha="center", va="baseline", **style)]


def _link_handles(graph: Topology) -> list[Artist]:
    found = {_speed(link)[1] for link in graph.links if link.rtt is not None}
    return [
        Line2D([], [], label=label, color=colour, linewidth=width, linestyle=style)
        for _, label, colour, width, style in SPEEDS
        if label in found
    ]
