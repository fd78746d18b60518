"""Loaded before any test: how hypothesis runs here."""

from hypothesis import settings

from tests import properties  # noqa: F401 - registers the profile

settings.load_profile("mesh")
