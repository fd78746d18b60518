"""Logging of a node: one line a record on stderr, as text or JSON. Tickets and tokens are never given to a logger."""

import json
import logging
import re
import sys
import time
from typing import Any

_RUN = re.compile(r"\brun (\d+)\b")


class JsonFormatter(logging.Formatter):
    """{"time", "level", "logger", "message"}, "node" (its peer ID) once that is known, "run" where the message names
    one, and "exception" where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = ""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self.peer:
            document["node"] = self.peer
        if run := _RUN.search(document["message"]):
            document["run"] = run[1]
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


def set_up(log_format: str, level: str) -> JsonFormatter | None:
    """The formatter, if it is JSON: it wants to be told the node's `peer`."""
    handler = logging.StreamHandler(sys.stderr)
    structured = JsonFormatter() if log_format == "json" else None
    if structured is not None:
        handler.setFormatter(structured)
    else:
        formatter = logging.Formatter("%(asctime)sZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    return structured
