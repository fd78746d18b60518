"""Numbers and names as people read them: short, of bounded width, without a choice of locale."""

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

PEER_CHARS = 8
"""The end of a peer ID that is shown: all of them begin alike."""

_UNSHOWN = ("Cc", "Cs", "Co", "Cn")

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float) -> str:
    """Bytes: "512 B", "1.5 GiB"."""
    step = 0
    while abs(count) >= 1023.95 and step < len(_SIZES) - 1:
        count /= 1024
        step += 1
    return f"{count:.0f} {_SIZES[step]}" if step == 0 or abs(count) >= 99.95 else f"{count:.1f} {_SIZES[step]}"


def duration(seconds: float) -> str:
    """Three digits or two units: "0.12 ms", "340 ms", "1.25 s", "2 min 05 s", "3 h 12 min", "2 d 04 h"."""
    if seconds < 0.9995:
        return milliseconds(seconds)
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def milliseconds(seconds: float) -> str:
    """A round-trip time: "0.42 ms", "12.3 ms", "340 ms", "1200 ms"."""
    value = seconds * 1000
    if value <= 0:
        return "0 ms"
    if value < 0.01:
        return "<0.01 ms"
    return f"{value:.2g} ms" if value < 9.95 else f"{value:.3g} ms" if value < 999.5 else f"{value:.0f} ms"


def moment(seconds: float) -> str:
    """Seconds since the epoch, as "2026-05-09 07:35:25 UTC"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(count: int) -> str:
    """Thousands apart: "10,000"."""
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def entries(count: int) -> str:
    """Of a log: "1 entry", "2 entries"."""
    return "1 entry" if count == 1 else f"{number(count)} entries"


def peer(identity: str) -> str:
    """The end of a peer ID: "…Ab12Cd34"."""
    return identity if len(identity) <= PEER_CHARS + 1 else "…" + identity[-PEER_CHARS:]


def clean(text: str) -> str:
    """On one line, without control characters, lone surrogates and the like: it goes to terminals, XML and figures."""
    return text if text.isprintable() else "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\t\n\r":
        return " "
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _UNSHOWN else character


def short(text: str, width: int) -> str:
    """At most `width` characters, the middle left out: both ends of a host or test name tell."""
    text = clean(text)
    if len(text) <= width:
        return text
    head = width // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :] if width > 1 else "…"[:width]


def mesh(name: str) -> str:
    """A mesh by the end of its founder's ID; the rest of its name is the nanosecond of its founding."""
    _, dot, founder = name.partition(".")
    return founder[-8:] if dot and founder else short(name, 24)


def distinct(names: Sequence[str], width: int) -> list[str]:
    """Names of hosts in at most `width` characters: without their domains, if they still differ then."""
    hosts = [name.partition(".")[0] for name in names]
    if all(hosts) and len(set(hosts)) == len(set(names)):
        names = hosts
    return [short(name, width) for name in names]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = (), width: int = 40) -> str:
    """Aligned columns, two spaces apart, a cell at most `width` characters; `right` numbers the right-aligned ones."""
    cells = [[short(cell, width) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(space) if column in right else cell.ljust(space)
            for column, (cell, space) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
