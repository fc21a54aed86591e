"""Values of settings, as variables, flags and files spell them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast.errors import InvalidError

VARIABLE_PREFIX: Final = "HOLDFAST_"


def split_list(text: str) -> tuple[str, ...]:
    """The values in ``text``, which commas separate."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def checked_value(name: str, value: Any, kind: Any, source: str, *, strict: bool = False) -> Any:
    """The value of the setting ``name`` as a ``kind``; texts are read, unless it is ``strict``.

    Raises InvalidError, which names its ``source`` and does not repeat it: it may be a secret.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{name} (from {source}): {error}") from error
