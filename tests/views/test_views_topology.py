"""The mesh as a graph, its DOT and GraphML, and where things are placed."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from io import BytesIO
from itertools import combinations

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_documents import peer, topology_document

from mesh.views.placement import BENT_PAST, Box, Side, bend_links, curve, place_labels, place_nodes
from mesh.views.render import draw_topology, networkx_graph
from mesh.views.topology import TopologyLink, TopologyNode, dot, summary, topology


def test_a_document_in_any_order_is_the_same_graph() -> None:
    document = topology_document(7)
    shuffled = {
        "mesh": document["mesh"],
        "nodes": document["nodes"][::-1],
        "links": [{"a": link["b"], "b": link["a"], "rtt": link["rtt"]} for link in document["links"][::-1]],
    }
    assert topology(document) == topology(shuffled)
    assert dot(topology(document)) == dot(topology(shuffled))


def test_what_is_absent_has_its_default_and_strangers_are_left_out() -> None:
    graph = topology(
        {
            "nodes": [{"peer": "a"}, {"peer": "b"}],
            "links": [
                {"a": "b", "b": "a"},
                {"a": "a", "b": "b", "rtt": 0.5},
                {"a": "a", "b": "b", "rtt": 0.2},
                {"a": "a", "b": "z", "rtt": 0.1},
                {"a": "a", "b": "a", "rtt": 0.1},
            ],
        }
    )
    assert graph.nodes == (
        TopologyNode("a", "a", "", "alive", False, "", 0, 0),
        TopologyNode("b", "b", "", "alive", False, "", 0, 0),
    )
    assert graph.links == (TopologyLink("a", "b", 0.2),)
    assert graph.coordinator is None


def test_summary() -> None:
    assert summary(topology(topology_document(8))) == (
        "8 nodes (1 suspect, 1 draining, 1 dead), 5 voters, coordinator lab-0, 12 of 28 slots busy, 21 links"
    )
    assert summary(topology({})) == "0 nodes, no coordinator, 0 of 0 slots busy"


def test_dot_quotes_names_and_marks_the_coordinator() -> None:
    document = topology_document(2, name='evil"\\N {}\n')
    text = dot(topology(document))
    lines = text.splitlines()
    first = next(line for line in lines if line.startswith(f'  "{peer(0)}" ['))
    assert r'label="evil\"\\N 0 \nauto, voter\n0/4 slots"' in first
    assert 'shape="doubleoctagon"' in first
    assert sum("doubleoctagon" in line for line in lines) == 1
    low, high = sorted((peer(0), peer(1)))
    assert any(line.startswith(f'  "{low}" -- "{high}" [label="') and "ms" in line for line in lines)
    assert (lines[0], lines[-1]) == ("graph mesh {", "}")


def test_networkx_graph_and_graphml_hold_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    document = topology_document(6, name="<lab & {}>\x01")
    graph = networkx_graph(document)
    path = tmp_path_factory.mktemp("graph") / "mesh.graphml"
    draw_topology(document, path)
    read = networkx.read_graphml(BytesIO(path.read_bytes()))
    assert set(read.nodes) == set(graph.nodes) == {peer(number) for number in range(6)}
    assert read.nodes[peer(0)]["coordinator"] is True
    assert read.nodes[peer(0)]["name"] == "<lab & 0>\N{REPLACEMENT CHARACTER}"
    assert {frozenset(edge) for edge in read.edges} == {frozenset(edge) for edge in graph.edges}
    assert all(graph.edges[edge]["rtt"] == pytest.approx(read.edges[edge]["rtt"]) for edge in read.edges)
    ElementTree.parse(path)


def cells(widths: Mapping[str, float]) -> dict[str, dict[Side, tuple[Box, ...]]]:
    disc = Box(-0.4, -0.4, 0.4, 0.4)
    return {
        name: {
            Side.ABOVE: (disc, Box(-width / 2, 0.4, width / 2, 0.7)),
            Side.BELOW: (disc, Box(-width / 2, -0.7, width / 2, -0.4)),
            Side.LEFT: (disc, Box(-0.4 - width, -0.15, -0.4, 0.15)),
            Side.RIGHT: (disc, Box(0.4, -0.15, 0.4 + width, 0.15)),
        }
        for name, width in widths.items()
    }


@given(count=st.integers(0, 40), dense=st.booleans(), data=st.data())
@settings(max_examples=12, deadline=None)
def test_nothing_overlaps_whatever_the_mesh_and_its_names(count: int, dense: bool, data: st.DataObject) -> None:
    graph = topology(topology_document(count, dense=dense))
    widths = {node.peer: data.draw(st.floats(0.2, 2.0), label=node.name) for node in graph.nodes}
    nodes = place_nodes(graph, cells(widths))
    assert set(nodes) == set(widths)
    sizes = {(link.a, link.b): (0.5, 0.2) for link in graph.links[:120]}
    labels = place_labels(graph, nodes, sizes, bend_links(graph, nodes))
    rtts = [Box(x - 0.25, y - 0.1, x + 0.25, y + 0.1) for x, y in labels.values()]
    owned = [(name, box) for name, node in nodes.items() for box in node.boxes] + [("", box) for box in rtts]
    for (name, box), (other, taken) in combinations(owned, 2):
        assert (name == other != "") or not box.overlaps(taken)


def test_a_link_does_not_seem_to_end_at_a_node_that_it_passes() -> None:
    """Of the coordinator's in a large mesh, whose rings have nodes one behind the other as seen from the middle."""
    graph = topology(topology_document(40))
    nodes = place_nodes(graph, cells({node.peer: 0.7 for node in graph.nodes}))
    bent = bend_links(graph, nodes)
    assert bent
    assert all(peer(0) in ends for ends in bent), "the others are faint"
    for a, b in bent:
        line = curve(nodes[a].point, nodes[b].point, bent[a, b])
        others = [node.point for name, node in nodes.items() if name not in (a, b)]
        assert min(math.dist(spot, other) for spot in line for other in others) >= BENT_PAST


def test_a_small_mesh_has_every_round_trip_time_written() -> None:
    for count in (2, 3, 5):
        graph = topology(topology_document(count))
        nodes = place_nodes(graph, cells({node.peer: 1.0 for node in graph.nodes}))
        sizes = {(link.a, link.b): (0.5, 0.2) for link in graph.links}
        assert set(place_labels(graph, nodes, sizes, bend_links(graph, nodes))) == set(sizes)
        assert len(sizes) == count * (count - 1) // 2


def test_near_neighbours_stand_side_by_side() -> None:
    """Two sites: around the ring, there are only two places where the site changes."""
    names = [f"{number}" for number in range(8)]
    links = [{"a": a, "b": b, "rtt": 0.0005 if int(a) % 2 == int(b) % 2 else 0.1} for a, b in combinations(names, 2)]
    graph = topology({"nodes": [{"peer": name, "coordinator": name == "3"} for name in names], "links": links})
    nodes = place_nodes(graph, cells(dict.fromkeys(names, 0.5)))
    assert nodes["3"].point == (0.0, max(node.point[1] for node in nodes.values()))
    order = list(nodes)
    assert sum(int(a) % 2 != int(b) % 2 for a, b in zip(order, order[1:] + order[:1], strict=True)) == 2
