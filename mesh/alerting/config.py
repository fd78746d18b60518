"""What an operator says of alerts: `[tool.mesh.alerts]` of a TOML file, checked key by key.

Secrets are named by the environment variable that holds them, so that the file may be shown to anybody.
"""

import dataclasses
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mesh.anomalies.rules import Rules
from protocols.alerts import AlertKind, Severity
from protocols.errors import UsageError

ALERTS_FILE = "alerts.toml"
"""In a node's home, where no other is given."""

FILE_BYTES_MAX = 256 * 1024
SINKS_MAX = 16

WHERE = "tool.mesh.alerts"

_SEVERITIES = tuple(Severity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """One that is told; of alerts of some kinds (empty: all), from a severity on."""

    least: Severity = Severity.WARNING
    kinds: tuple[AlertKind, ...] = ()
    recovery: bool = True
    """Whether it is told, too, that an alert is over."""

    def wants(self, kind: AlertKind, severity: Severity) -> bool:
        loud = _SEVERITIES.index(severity) >= _SEVERITIES.index(self.least)
        return loud and (not self.kinds or kind in self.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(Sink):
    url: str
    token: str = field(default="", repr=False)
    """Sent as a bearer token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack(Sink):
    """Slack, and all that takes its messages (Mattermost, Rocket.Chat, Discord's /slack)."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Email(Sink):
    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    starttls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Sink):
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlertConfig:
    rules: Rules = field(default_factory=Rules)
    sinks: tuple[Sink, ...] = ()


def load(path: Path | None, home: Path) -> AlertConfig:
    """Of `path`, or else of the home's file if there is one; `UsageError` names what is wrong."""
    chosen = path or home / ALERTS_FILE
    if path is None and not chosen.exists():
        return AlertConfig()
    try:
        data = chosen.read_bytes()
        if len(data) > FILE_BYTES_MAX:
            raise UsageError(f"{chosen} is over {FILE_BYTES_MAX} bytes, which is no file of alerts")
        document = tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"the file of alerts {str(chosen)!r} can't be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{chosen} is not TOML: {error}") from None
    try:
        return parse(document, os.environ)
    except UsageError as error:
        raise UsageError(f"{chosen}: {error}") from None


def parse(document: Mapping[str, Any], environment: Mapping[str, str]) -> AlertConfig:
    table: Any = document
    for name in WHERE.split("."):
        table = table.get(name, {}) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping):
        raise UsageError(f"[{WHERE}] must be a table")
    _known(table, ("rules", "sinks"), WHERE)
    sinks = table.get("sinks", [])
    if not isinstance(sinks, list) or len(sinks) > SINKS_MAX:
        raise UsageError(f"'sinks' of [{WHERE}] must be a list of at most {SINKS_MAX} tables")
    made = tuple(_sink(each, f"sink {number} of [{WHERE}]", environment) for number, each in enumerate(sinks, start=1))
    return AlertConfig(_rules(table.get("rules", {})), made)


def _rules(table: Any) -> Rules:
    where = f"[{WHERE}.rules]"
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} must be a table")
    kinds: dict[str, type] = {one.name: type(getattr(Rules(), one.name)) for one in dataclasses.fields(Rules)}
    _known(table, tuple(kinds), where)
    given: dict[str, Any] = {}
    for name, value in table.items():
        kind = kinds[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = isinstance(value, bool) if kind is bool else number and (kind is float or float(value).is_integer())
        if not fits or (kind is not bool and not 0 <= value < 2**60):
            what = {bool: "true or false", int: "a whole number from 0"}.get(kind, "a number from 0")
            raise UsageError(f"{name!r} of {where} must be {what}, not {value!r:.40}")
        given[name] = kind(value)
    if given.get("slow_factor", 2.0) <= 1:
        raise UsageError(f"'slow_factor' of {where} must be over 1")
    return Rules(**given)


_COMMON = ("kind", "least", "kinds", "recovery")


def _sink(table: Any, where: str, environment: Mapping[str, str]) -> Sink:
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} must be a table")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in _SINKS:
        raise UsageError(f"'kind' of {where} must be one of {', '.join(_SINKS)}, not {kind!r:.40}")
    fields, make = _SINKS[kind]
    _known(table, (*_COMMON, *fields), where)
    told = _Table(table, where, environment)
    kinds = told.texts("kinds", ())
    if unknown := [name for name in kinds if name not in list(AlertKind)]:
        raise UsageError(f"'kinds' of {where} has {unknown[0][:40]!r}; known are {', '.join(AlertKind)}")
    least = told.text("least", Severity.WARNING.value)
    if least not in list(Severity):
        raise UsageError(f"'least' of {where} must be one of {', '.join(Severity)}, not {least[:40]!r}")
    common = {
        "least": Severity(least),
        "kinds": tuple(AlertKind(name) for name in kinds),
        "recovery": told.flag("recovery", True),
    }
    return make(told, common)


@dataclass(frozen=True, slots=True)
class _Table:
    """A sink's keys, by type."""

    table: Mapping[str, Any]
    where: str
    environment: Mapping[str, str]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.table.get(name, default)
        if not isinstance(value, str) or not (value or default == "") or "\n" in value:
            raise UsageError(f"{name!r} of {self.where} must be a text in one line")
        return value

    def texts(self, name: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self.table.get(name, default)
        if not isinstance(value, list | tuple) or not all(
            isinstance(one, str) and one and "\n" not in one for one in value
        ):
            raise UsageError(f"{name!r} of {self.where} must be a list of texts")
        if default is None and not value:
            raise UsageError(f"{name!r} of {self.where} must not be empty")
        return tuple(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.table.get(name, default)
        if not isinstance(value, bool):
            raise UsageError(f"{name!r} of {self.where} must be true or false")
        return value

    def port(self, name: str, default: int) -> int:
        value = self.table.get(name, default)
        if type(value) is not int or not 0 < value < 65_536:
            raise UsageError(f"{name!r} of {self.where} must be a port")
        return value

    def secret(self, name: str) -> str:
        """The content of the variable that `name` names; empty where it names none."""
        variable = self.text(name, "")
        if variable and variable not in self.environment:
            raise UsageError(f"{name!r} of {self.where} names the variable {variable[:80]!r}, which is not set")
        return self.environment[variable] if variable else ""

    def url(self) -> str:
        """From "url", or from the variable that "url_env" names."""
        value = self.secret("url_env") or self.text("url")
        if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc:
            raise UsageError(f"'url' of {self.where} must be an http or https address")
        return value


def _email(told: _Table, common: Mapping[str, Any]) -> Sink:
    return Email(
        host=told.text("host"),
        port=told.port("port", 25),
        sender=told.text("from"),
        to=told.texts("to"),
        user=told.text("user", ""),
        password=told.secret("password_env"),
        starttls=told.flag("starttls", False),
        **common,
    )


_SINKS: dict[str, tuple[tuple[str, ...], Callable[[_Table, Mapping[str, Any]], Sink]]] = {
    "webhook": (
        ("url", "url_env", "token_env"),
        lambda told, common: Webhook(url=told.url(), token=told.secret("token_env"), **common),
    ),
    "slack": (("url", "url_env"), lambda told, common: Slack(url=told.url(), **common)),
    "email": (("host", "port", "from", "to", "user", "password_env", "starttls"), _email),
    "command": (("command",), lambda told, common: Command(command=told.texts("command"), **common)),
}


def _known(table: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in names:
            raise UsageError(f"{where} has no key {name[:40]!r}; known are {', '.join(names)}")
