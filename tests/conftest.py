"""Loaded before any test: how hypothesis runs here, and what Ctrl-C means."""

import signal

from hypothesis import settings

from tests import properties  # noqa: F401 - registers the profile

settings.load_profile("mesh")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's background job, for all that tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)
