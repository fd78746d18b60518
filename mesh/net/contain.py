"""What a peer does may end its stream or its connection, and nothing more (show-stopper 2 of libp2p 0.8.1)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def contained(what: str, level: int = logging.DEBUG) -> Iterator[None]:
    """Log any exception of the body and go on; cancellation passes.

    libp2p runs everything in one nursery: what escapes from a handler, a validator or a connection's task takes the
    whole host with it.
    """
    try:
        yield
    except Exception as error:
        log.log(level, "%s failed: %s: %s", what, type(error).__name__, error, exc_info=level >= logging.ERROR)
    except BaseExceptionGroup as group:
        errors, rest = group.split(Exception)
        if errors is not None:
            log.log(level, "%s failed: %s", what, errors, exc_info=level >= logging.ERROR)
        if rest is not None:
            raise rest from None
