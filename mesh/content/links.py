"""Where the symbolic links of a tree lead, by their texts alone. Pure.

A link may stay in its tree by its own text and leave it through another link: `x -> d/../..` where `d -> a/b/c/top` and
`top -> ../../..`. So each is followed as a kernel would, in the tree as it will be.
"""

from collections.abc import Mapping

from mesh.content.unixfs.build import DEPTH_MAX
from protocols.errors import RemoteProtocolError

FOLLOWS_MAX = 40
"""Links on the way of one; Linux gives up there (path_resolution(7)), and macOS before."""

STEPS_MAX = 2_000_000
"""Names looked at for all links of a tree, about half a second."""


def leaving(links: Mapping[str, str]) -> str | None:
    """The path of a link, of those given as path -> target, that leads out of the tree; None if all stay.
    `RemoteProtocolError` when they are too tangled to tell."""
    steps = STEPS_MAX
    for path in links:
        steps = _follow(path, links, steps)
        if steps < 0:
            return path
    return None


def _follow(path: str, links: Mapping[str, str], steps: int) -> int:
    """How many of `steps` are left; negative if the link leads out."""
    here: list[str] = []
    todo = path.split("/")[::-1]
    follows = 0
    while todo:
        steps -= 1
        if steps <= 0:
            raise RemoteProtocolError("its links are too tangled to be followed")
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not here:
                return -1
            here.pop()
            continue
        here.append(name)
        if len(here) > DEPTH_MAX:
            break  # nothing is so deep
        target = links.get("/".join(here))
        if target is None:
            continue
        follows += 1
        if target.startswith("/"):
            return -1
        if follows > FOLLOWS_MAX:
            break
        here.pop()
        names = target.split("/")
        steps -= len(names)
        todo += names[::-1]
    return steps
