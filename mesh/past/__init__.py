"""Finished runs, for longer than the log remembers them: kept on every voter, told by any node.

`keeper` fills a voter's history from its replica of the log; `desk` makes documents of it. Nothing here decides
anything that the log does not say.
"""

from mesh.past.desk import PastDesk
from mesh.past.keeper import PastKeeper
from mesh.past.rebuilding import Rebuilding

__all__ = ["PastDesk", "PastKeeper", "Rebuilding"]
