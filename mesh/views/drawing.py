"""What the figures share: their inks, and the measures of text in the one font that comes with matplotlib."""

import functools

from matplotlib.font_manager import FontProperties, findfont, get_font

INK, SOFT, FAINT, RULE = "#1F2933", "#5F6B7A", "#9AA5B1", "#E4E7EB"
"""Text, lesser text, what is hardly there, and lines between things."""


BOLD = 0.84
"""Room that bold text needs, in that of normal text."""


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Inches, at `size` points."""
    return sum(_advance(character, weight) for character in text) * size / 72


@functools.lru_cache(maxsize=4096)
def _advance(character: str, weight: str) -> float:
    """Width of a character, in ems."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(100, 72)
    return float(font.load_char(ord(character)).linearHoriAdvance) / 65536 / 100


@functools.cache
def _drawable() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def shown(text: str) -> str:
    """`text` with what the font cannot draw replaced."""
    return "".join(c if ord(c) in _drawable() else "\N{REPLACEMENT CHARACTER}" for c in text)
