"""Where the nodes and labels of a topology picture go. Pure geometry in inches, y upwards, the same for the same input.

Nodes stand on one ring, in an order that puts near neighbours (by round-trip time) side by side; a large mesh has its
coordinator in the middle, the voters around it and the others on rings outside. A node owns a cell, the box of its disc
and its label, which stands outwards on the outermost ring, where no link runs; no two cells overlap, because a ring
grows until that holds. Link labels take the first of a few places
along their link that touches no cell and no other label, with the fewest foreign links under it; one that finds none
is left out, and the picture says so. A link that would pass behind the disc of another node is bent around it, since it
would seem to end there. In a mesh that is both large and dense only the coordinator's links are labelled:
nobody could tell whose the others are.

Rejected: force-directed layouts (they shuffle everything when one node comes or goes, and labels collide), Graphviz (a
program to install).
"""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mesh.views.topology import Topology, TopologyLink

RING_NODES_MAX = 14
"""Nodes on a single ring; more are laid out around the coordinator."""
OUTER_RING_NODES_MEAN = 34
ASPECT = 1.45
"""Width of a ring to its height: cells are wider than high, and so are screens."""
RADIUS_MIN = 1.25
RING_GAP = 0.8
"""Between rings, at least: room for the labels of the links."""
RADIUS_PER_NODE = 0.14
"""What each node beyond three adds to a single ring: room for the labels of the links within."""
CLEARANCE = 0.4
"""Between a node on a single ring and the link of its neighbours, which would else seem to end at it."""
RADIUS_STEP_MAX, RADIUS_STEP_MIN = 0.4, 0.03
"""How a ring grows until nothing on it collides (a wide one by a fifth), and how near to that it then shrinks."""
SIDEWAYS_SINE_MAX = 0.45
"""Nodes so near to the ends of the outermost ring have their labels beside them, the others above or below."""
DENSE = 4
"""Links to a node, on average: with more, they are not told apart."""
LINKS_WEIGHED_MAX = 200
"""With more links than this, a label does not look for the place where it covers the fewest others."""
BENDS = (0.0, *(sign * 0.3 * step for step in range(1, 9) for sign in (1, -1)))
"""How far beside its middle a link's control point may lie, to the left of it where positive; the first that is clear
is taken."""
BENT_PAST = 0.36
"""Between a link and the centre of a foreign disc, at least, where there is such a bend."""
CURVE_POINTS = 24
PLACES = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7, 0.25, 0.75, 0.2, 0.8, 0.15, 0.85)
"""Where along its link a label may stand."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def at(self, point: Point) -> "Box":
        x, y = point
        return Box(self.left + x, self.bottom + y, self.right + x, self.top + y)


class Side(enum.Enum):
    """Where a node's label stands, seen from its disc."""

    ABOVE = "above"
    BELOW = "below"
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Placed:
    """The centre of a node's disc, the side of its label, and the boxes of both."""

    point: Point
    side: Side
    boxes: tuple[Box, ...]


Cells = Mapping[str, Mapping[Side, tuple[Box, ...]]]
"""The boxes of each node's disc and label, relative to the centre of the disc, by the side of the label."""


def place_nodes(graph: Topology, cells: Cells) -> dict[str, Placed]:
    """Every node's place, in the order of the rings, each from its top clockwise."""
    order = _order(graph)
    if len(order) <= RING_NODES_MAX:
        return _rings([order] if order else [], cells)
    return _rings(_shells(graph, order), cells)


def _shells(graph: Topology, order: Sequence[str]) -> list[list[str]]:
    """The coordinator, the voters, and the others on rings of which each holds more than the one within."""
    inner = {node.peer for node in graph.nodes if node.coordinator}
    middle = {node.peer for node in graph.nodes if node.raft == "voter"} - inner
    outer = [peer for peer in order if peer not in inner and peer not in middle]
    rings = [[peer for peer in order if peer in inner], [peer for peer in order if peer in middle]]
    taken, count = 0, math.ceil(len(outer) / OUTER_RING_NODES_MEAN)
    for ring in range(count):  # circumferences grow as 2, 3, 4, …
        share = round(len(outer) * (ring + 2) / sum(range(2, count + 2)))
        upto = len(outer) if ring == count - 1 else taken + share
        rings.append(outer[taken:upto])
        taken = upto
    return [ring for ring in rings if ring]


def _order(graph: Topology) -> list[str]:
    """Peers, the coordinator first, then always the nearest of those that are left; unmeasured ones in their order."""
    peers = [node.peer for node in graph.nodes]
    distance: dict[tuple[str, str], float] = {}
    for link in graph.links:
        if link.rtt is not None:
            distance[link.a, link.b] = distance[link.b, link.a] = link.rtt
    coordinator = graph.coordinator
    left = list(peers)
    here = coordinator.peer if coordinator else (peers[0] if peers else "")
    order = []
    while left:
        left.remove(here)
        order.append(here)
        here = min(left, key=lambda peer: (distance.get((here, peer), math.inf), peer), default="")
    return order


def _rings(rings: Sequence[Sequence[str]], cells: Cells) -> dict[str, Placed]:
    placed: dict[str, Placed] = {}
    radius = RADIUS_MIN
    if len(rings) == 1:
        radius = max(radius + RADIUS_PER_NODE * max(0, len(rings[0]) - 3), _passing(len(rings[0])))
    for number, ring in enumerate(rings):
        if len(ring) == 1 and not placed:
            placed[ring[0]] = _placed((0.0, 0.0), Side.BELOW, cells[ring[0]])
            continue
        if placed:
            radius += RING_GAP
        outermost = number == len(rings) - 1 and len(ring) > 2
        old = list(placed.values())
        step, least = RADIUS_STEP_MIN, radius
        nodes = _ring(ring, radius, number, cells, outermost)
        while _collide(nodes, old):
            step = max(RADIUS_STEP_MAX, radius / 5)
            radius += step
            nodes = _ring(ring, radius, number, cells, outermost)
        while step > RADIUS_STEP_MIN:  # back in halves of that step, as far as there is room
            step /= 2
            closer = _ring(ring, radius - step, number, cells, outermost)
            if radius - step >= least and not _collide(closer, old):
                radius, nodes = radius - step, closer
        placed.update(zip(ring, nodes, strict=True))
    return placed


def _passing(count: int) -> float:
    """The radius at which a link over one node passes it at `CLEARANCE`."""
    return CLEARANCE / (1 - math.cos(2 * math.pi / count)) if count > 4 else 0.0


def _ring(peers: Sequence[str], radius: float, number: int, cells: Cells, outermost: bool) -> list[Placed]:
    """Clockwise from the top, two side by side. Rings begin half a step apart, so that discs do not line up."""
    count = len(peers)
    begin = math.pi if count == 2 else math.pi / 2 - (number % 2) * math.pi / count
    nodes = []
    for index, peer in enumerate(peers):
        angle = begin - 2 * math.pi * index / count
        point = (round(ASPECT * radius * math.cos(angle), 6), round(radius * math.sin(angle), 6))
        side = _outwards(angle) if outermost else Side.BELOW
        nodes.append(_placed(point, side, cells[peer]))
    return nodes


def _placed(point: Point, side: Side, boxes: Mapping[Side, tuple[Box, ...]]) -> Placed:
    return Placed(point, side, tuple(box.at(point) for box in boxes[side]))


def _outwards(angle: float) -> Side:
    if abs(math.sin(angle)) > SIDEWAYS_SINE_MAX:
        return Side.ABOVE if math.sin(angle) > 0 else Side.BELOW
    return Side.RIGHT if math.cos(angle) > 0 else Side.LEFT


def _collide(new: Sequence[Placed], old: Sequence[Placed]) -> bool:
    return any(_touch(node, other) for index, node in enumerate(new) for other in (*new[index + 1 :], *old))


def _touch(a: Placed, b: Placed) -> bool:
    return any(box.overlaps(taken) for box in a.boxes for taken in b.boxes)


def is_dense(graph: Topology) -> bool:
    """Whether there are so many links that all but the coordinator's only show how dense the mesh is."""
    return len(graph.links) > DENSE * len(graph.nodes)


def bend_links(graph: Topology, nodes: Mapping[str, Placed]) -> dict[tuple[str, str], Point]:
    """The control points of the links that are bent (quadratic Bézier curves), by their ends; of those to be told
    apart."""
    chief = graph.coordinator.peer if graph.coordinator else ""
    told = [link for link in graph.links if not is_dense(graph) or chief in (link.a, link.b)]
    bent: dict[tuple[str, str], Point] = {}
    for link in told:
        a, b = nodes[link.a].point, nodes[link.b].point
        near = [
            node.point
            for peer, node in nodes.items()
            if peer not in (link.a, link.b) and _distance(node.point, a, b) < BENT_PAST + max(BENDS) / 2
        ]
        bend = max(BENDS, key=lambda bend: min(_passed(a, b, _control(a, b, bend), near), BENT_PAST))
        control = _control(a, b, bend)
        if control is not None:
            bent[link.a, link.b] = control
    return bent


def along(a: Point, b: Point, control: Point | None, share: float) -> Point:
    """A point of a link, `share` of the way from `a` to `b`; straight without a control point."""
    (ax, ay), (bx, by) = a, b
    cx, cy = control or ((ax + bx) / 2, (ay + by) / 2)
    start, middle, end = (1 - share) ** 2, 2 * share * (1 - share), share**2
    return (start * ax + middle * cx + end * bx, start * ay + middle * cy + end * by)


def curve(a: Point, b: Point, control: Point | None) -> list[Point]:
    """A link as a line of short pieces; of one, if it is straight."""
    if control is None:
        return [a, b]
    return [along(a, b, control, step / CURVE_POINTS) for step in range(CURVE_POINTS + 1)]


def _control(a: Point, b: Point, bend: float) -> Point | None:
    if not bend:
        return None
    (ax, ay), (bx, by), length = a, b, math.dist(a, b) or 1.0
    return ((ax + bx) / 2 - bend * (by - ay) / length, (ay + by) / 2 + bend * (bx - ax) / length)


def _passed(a: Point, b: Point, control: Point | None, discs: Sequence[Point]) -> float:
    """How near a link comes to the nearest of these discs' centres."""
    line = curve(a, b, control)
    return min((_distance(disc, p, q) for p, q in pairwise(line) for disc in discs), default=math.inf)


def _distance(point: Point, a: Point, b: Point) -> float:
    """From a point to a segment."""
    (x, y), (ax, ay), (bx, by) = point, a, b
    square = (bx - ax) ** 2 + (by - ay) ** 2
    share = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / square if square else 0.0
    share = min(1.0, max(0.0, share))
    return math.dist(point, (ax + share * (bx - ax), ay + share * (by - ay)))


def place_labels(
    graph: Topology,
    nodes: Mapping[str, Placed],
    sizes: Mapping[tuple[str, str], Point],
    bent: Mapping[tuple[str, str], Point],
) -> dict[tuple[str, str], Point]:
    """The centre of each link's label that finds room. `sizes`: width and height, by the link's ends; `bent`: the
    control points of the links that are."""
    coordinator = graph.coordinator
    chief = coordinator.peer if coordinator else ""
    wanted = [link for link in graph.links if (link.a, link.b) in sizes]
    if len(nodes) > RING_NODES_MAX and len(wanted) > 2 * len(nodes):
        wanted = [link for link in wanted if chief in (link.a, link.b)]
    points = {peer: node.point for peer, node in nodes.items()}
    # the coordinator's first, as they matter most; then the shorter, as they have less choice
    wanted.sort(
        key=lambda link: (
            chief not in (link.a, link.b),
            round(math.dist(points[link.a], points[link.b]), 3),
            link.a,
            link.b,
        )
    )
    taken = [box for peer in sorted(nodes) for box in nodes[peer].boxes]
    weighed = wanted if len(graph.links) > LINKS_WEIGHED_MAX else list(graph.links)
    placed: dict[tuple[str, str], Point] = {}
    for link in wanted:
        spot = _spot(link, points, bent.get((link.a, link.b)), sizes[link.a, link.b], taken, weighed)
        if spot is not None:
            placed[link.a, link.b] = spot
            taken.append(_around(spot, sizes[link.a, link.b]))
    return placed


def _spot(
    link: TopologyLink,
    points: Mapping[str, Point],
    control: Point | None,
    size: Point,
    taken: Sequence[Box],
    links: Sequence[TopologyLink],
) -> Point | None:
    best: tuple[int, int] | None = None
    found: Point | None = None
    for rank, share in enumerate(PLACES):
        spot = along(points[link.a], points[link.b], control, share)
        box = _around(spot, size)
        if any(box.overlaps(other) for other in taken):
            continue
        crossed = sum(other is not link and _crosses(points[other.a], points[other.b], box) for other in links)
        if best is None or (crossed, rank) < best:
            best, found = (crossed, rank), spot
    return found


def _around(spot: Point, size: Point) -> Box:
    (x, y), (width, height) = spot, size
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _crosses(a: Point, b: Point, box: Box) -> bool:
    """Whether the segment touches the box (Liang and Barsky's clipping)."""
    (ax, ay), (bx, by) = a, b
    low, high = 0.0, 1.0
    for delta, room_back, room_ahead in (
        (bx - ax, ax - box.left, box.right - ax),
        (by - ay, ay - box.bottom, box.top - ay),
    ):
        for slope, room in ((-delta, room_back), (delta, room_ahead)):
            if slope == 0:
                if room < 0:
                    return False
            elif slope < 0:
                low = max(low, room / slope)
            else:
                high = min(high, room / slope)
    return low <= high
