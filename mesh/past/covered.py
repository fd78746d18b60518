"""What a run covered, as its report tells."""

import logging

import trio

from mesh.ports import Content
from mesh.state.past import covered_part
from protocols.errors import ContentNotFound, RemoteProtocolError, UsageError
from protocols.history import COVERAGE_FILE
from protocols.ids import Cid

log = logging.getLogger(__name__)


async def coverage(content: Content, report: Cid, seconds: float) -> float | None:
    """0 to 1; None: the report tells of none, or can't be had within `seconds`."""
    with trio.move_on_after(seconds):
        try:
            return covered_part(b"".join([part async for part in content.read(report, COVERAGE_FILE)]))
        except UsageError:  # it has no such file
            return None
        except (ContentNotFound, RemoteProtocolError) as error:
            log.info("what report %s covers is not kept: %s", report, error)
            return None
    log.info("what report %s covers is not kept: its report was not had in %d s", report, seconds)
    return None
