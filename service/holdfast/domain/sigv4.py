"""Links: requests signed in their query, as AWS Signature Version 4 has it for the service s3.

A link is a method, a host, a path, and a query that holds who signed it, when, for how long, and
the signature of all of that; the payload is not signed. Path and query are taken as they are on the
wire: nothing is decoded, so two spellings of one path are two requests.

Why: docs/decisions.md, "A link is a signature of S3, over the bytes as they are sent".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, unquote

from holdfast.errors import ForbiddenError, InvalidError

ALGORITHM: Final = "AWS4-HMAC-SHA256"
PREFIX: Final = "X-Amz-"
"""The beginning of the names of a link's own parameters."""

MAX_LINK_SECONDS: Final = 7 * 24 * 3600
MAX_SKEW: Final = timedelta(minutes=5)
"""The most that the signer's clock may be ahead of the checker's."""

REGION: Final = "us-east-1"
_SERVICE: Final = "s3"
_END: Final = "aws4_request"
_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
_TIME: Final = "%Y%m%dT%H%M%SZ"
_UNRESERVED: Final = "-_.~"

_SIGNATURE: Final = f"{PREFIX}Signature"
_NAMES: Final = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
_OWN: Final = frozenset(PREFIX + name for name in _NAMES)
_SHOWN_RE: Final = re.compile(rf"{PREFIX}({'|'.join(_NAMES)})(=|%(25)*3[Dd])")
_DATE_RE: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_SECONDS_RE: Final = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
_HEADERS_RE: Final = re.compile(r"[a-z0-9-]+(;[a-z0-9-]+)*", re.ASCII)
_SIGNATURE_RE: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NOBODY: Final = "the secret of a key that there is not"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTarget:
    """A request as it is signed. ``path`` and ``query`` are percent-encoded, without the ``?``.

    ``headers`` are by their lower-case names, without ``host``, which is the public one.
    """

    method: str
    host: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A link that was found right: who signed it, and from when until when it holds."""

    key_id: str
    signed_at: datetime
    expires_at: datetime


def is_link(path: str, query: str) -> bool:
    """Whether somebody tries to show a link, however spoilt: ``path`` may have its query, too.

    In ``query`` what is percent-encoded is of a value, such as a name.
    """
    in_query = any(f"{name}=" in query for name in _OWN)
    return in_query or _SHOWN_RE.search(path) is not None


def without_link(path: str) -> str:
    """``path``, decoded or not, as it may be logged: without a link in it that may be valid."""
    shown = _SHOWN_RE.search(path)
    return path if shown is None else path[: shown.start()]


def sign(
    target: LinkTarget,
    *,
    key_id: str,
    secret: str,
    now: datetime,
    seconds: int,
    region: str = REGION,
) -> str:
    """The query with which ``target`` is a link that holds for ``seconds`` from ``now`` on.

    Raises InvalidError where that is less than one, or more than seven days.
    """
    if not 1 <= seconds <= MAX_LINK_SECONDS:
        raise InvalidError(f"a link holds for 1 to {MAX_LINK_SECONDS} seconds (seven days)")
    signed_at = now.astimezone(UTC).strftime(_TIME)
    scope = f"{signed_at[:8]}/{region}/{_SERVICE}/{_END}"
    said = {
        "Algorithm": ALGORITHM,
        "Credential": f"{key_id}/{scope}",
        "Date": signed_at,
        "Expires": str(seconds),
        "SignedHeaders": "host",
    }
    own = "&".join(f"{PREFIX}{name}={quote(text, _UNRESERVED)}" for name, text in said.items())
    query = f"{target.query}&{own}" if target.query else own
    signature = _signature(secret, signed_at, scope, _canonical(target, query, ["host"]))
    return f"{query}&{_SIGNATURE}={signature}"


def verify_link(target: LinkTarget, secrets: Mapping[str, str], now: datetime) -> Signed:
    """The signer of the link ``target``, by the ``secrets`` of the keys that hold now.

    Raises ForbiddenError, which tells an expired link apart and no other reason.
    """
    said, rest = _split(target.query)
    if said.keys() != _OWN or said[f"{PREFIX}Algorithm"] != ALGORITHM:
        raise _refused()
    signed_at, expires = said[f"{PREFIX}Date"], said[f"{PREFIX}Expires"]
    names, signature = said[f"{PREFIX}SignedHeaders"], said[_SIGNATURE]
    key_id, _, scope = said[f"{PREFIX}Credential"].partition("/")
    if (
        _DATE_RE.fullmatch(signed_at) is None
        or _SECONDS_RE.fullmatch(expires) is None
        or _HEADERS_RE.fullmatch(names) is None
        or _SIGNATURE_RE.fullmatch(signature) is None
        or not _is_scope(scope, signed_at)
    ):
        raise _refused()
    signs = _canonical(target, rest, names.split(";"))
    expected = _signature(secrets.get(key_id, _NOBODY), signed_at, scope, signs)
    is_right = hmac.compare_digest(expected, signature)
    if key_id not in secrets or not is_right:
        raise _refused()
    return _in_time(key_id, signed_at, int(expires), now)


def _split(query: str) -> tuple[dict[str, str], str]:
    """A link's own parameters, decoded; and all of ``query`` but the signature, as it is.

    Raises ForbiddenError where one comes twice.
    """
    said: dict[str, str] = {}
    rest = []
    for pair in query.split("&"):
        name, _, text = pair.partition("=")
        if name.startswith(PREFIX):
            if name in said:
                raise _refused()
            said[name] = unquote(text)
        if name != _SIGNATURE:
            rest.append(pair)
    return said, "&".join(rest)


def _is_scope(scope: str, signed_at: str) -> bool:
    day, _, rest = scope.partition("/")
    region, _, tail = rest.partition("/")
    return day == signed_at[:8] and region != "" and tail == f"{_SERVICE}/{_END}"


def _canonical(target: LinkTarget, query: str, names: list[str]) -> str:
    """The canonical request. Raises ForbiddenError where ``host`` is not signed."""
    if "host" not in names or names != sorted(set(names)):
        raise _refused()
    headers = {**target.headers, "host": target.host}
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&"))
    return "\n".join(
        (
            target.method,
            target.path,
            "&".join(f"{name}={text}" for name, text in pairs),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
            "",
            ";".join(names),
            _PAYLOAD,
        )
    )


def _signature(secret: str, signed_at: str, scope: str, canonical: str) -> str:
    """Lower-case hexadecimal."""
    key = f"AWS4{secret}".encode()
    for token in scope.split("/"):
        key = _hmac(key, token)
    digest = hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()
    return _hmac(key, f"{ALGORITHM}\n{signed_at}\n{scope}\n{digest}").hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(errors="surrogateescape"), "sha256")


def _in_time(key_id: str, signed_at: str, seconds: int, now: datetime) -> Signed:
    """Raises ForbiddenError."""
    try:
        start = datetime.strptime(signed_at, _TIME).replace(tzinfo=UTC)
    except ValueError:  # a month 13
        raise _refused() from None
    if seconds > MAX_LINK_SECONDS or start > now + MAX_SKEW:
        raise _refused()
    end = start + timedelta(seconds=seconds)
    if now >= end:
        raise ForbiddenError("the link has expired")
    return Signed(key_id=key_id, signed_at=start, expires_at=end)


def _refused() -> ForbiddenError:
    return ForbiddenError("the link is not valid")
