"""The mesh as a networkx graph and as a picture, from Python.

    python examples/plot_topology.py HOME FILE.png

`mesh topology -o FILE.png` draws the same picture (.svg, .dot and .graphml work, too). With the graph at hand any
question about the network is a line of networkx: here, which node is nearest to all the others.
"""

import json
import sys
import urllib.request
from pathlib import Path

import networkx

from mesh.views.render import draw_topology, networkx_graph


def topology(home: Path) -> dict[str, object]:
    """The document of /api/topology, asked of the node that runs in `home`."""
    api = json.loads((home / "api.json").read_text())
    request = urllib.request.Request(f"{api['url']}/api/topology", headers={"Authorization": f"Bearer {api['token']}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        document: dict[str, object] = json.load(answer)
        return document


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: plot_topology.py HOME FILE.png")
    document = topology(Path(sys.argv[1]))
    draw_topology(document, sys.argv[2])
    graph = networkx_graph(document)
    for a, b, link in graph.edges(data=True):
        print(f"{graph.nodes[a]['name']} - {graph.nodes[b]['name']}: {1000 * link.get('rtt', 0.0):.1f} ms")
    near = networkx.closeness_centrality(graph, distance="rtt")
    if near:
        print(f"nearest to all: {graph.nodes[max(near, key=lambda peer: near[peer])]['name']}")
    print(sys.argv[2])


if __name__ == "__main__":
    main()
