"""The look of values on a page. Text of others is shown so that nothing hides in it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_UNIT: Final = 1024
_DURATIONS: Final = ((604_800, "w"), (86_400, "d"), (3600, "h"), (60, "m"))
_MINUTE_CHARS: Final = len("2026-11-30T12:00")


def shown(text: str | bytes) -> str:
    r"""``text`` on one line: what is no printable character is escaped, as ``\n`` or ``\xff``."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def size_text(size: float) -> str:
    """``size`` bytes with a binary unit: ``4.0 MiB``."""
    for unit in _UNITS:
        if size < _UNIT or unit == _UNITS[-1]:
            break
        size /= _UNIT
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def time_text(at: str | None) -> str:
    """A time of the wire to the minute."""
    return "-" if not at else at[:_MINUTE_CHARS].replace("T", " ")


def duration_text(seconds: int | None) -> str:
    """A number of seconds as it would be typed: ``30d``; empty of None."""
    if seconds is None:
        return ""
    for size, unit in _DURATIONS:
        if seconds and not seconds % size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def mode_text(mode: int) -> str:
    """Permission bits as ``ls`` has them: ``rw-r--r--``."""
    return "".join(
        letter if mode >> (8 - place) & 1 else "-" for place, letter in enumerate("rwxrwxrwx")
    )


def place(base: str, path: str, /, **query: str | bytes | int | None) -> str:
    """The URL of a page; of ``query`` what is None is left away."""
    given = ((name, value) for name, value in query.items() if value is not None)
    pairs = "&".join(f"{name}={_quoted(value)}" for name, value in given)
    return f"{base}/console{quote(path, safe='/:')}{'?' if pairs else ''}{pairs}"


def _quoted(value: str | bytes | int) -> str:
    return quote(value if isinstance(value, bytes) else str(value), safe="")
