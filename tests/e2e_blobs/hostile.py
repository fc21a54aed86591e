"""Requests that a fuzzer, a broken client or an attacker might send: reproducible from a seed."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

import msgspec

VERBS = ("put", "get", "has", "stat", "list", "delete", "open", "resume", "abort", "verify")
FIELDS = {
    "get": ("digest", "offset", "length", "cursor", "proxy", "space"),
    "has": ("digests", "space"),
    "stat": ("digest", "space"),
    "list": ("prefix", "cursor", "limit"),
    "delete": ("digest",),
    "open": ("size", "digest", "type"),
    "resume": ("upload",),
    "abort": ("upload",),
    "verify": ("digest", "cursor", "limit"),
}
HEADERS = (
    "Blob-Digest",
    "Blob-Type",
    "Blob-Space",
    "Blob-Part",
    "Blob-Final",
    "Blob-Name",
    "Blob-Surprise",
    "Content-Type",
    "Op-Id",
    "Timeout",
    "Nats-Rollup",
    "Nats-Msg-Id",
    "Nats-Expected-Last-Subject-Sequence",
    "Nats-TTL",
    "traceparent",
    "X-Anything",
)


class Hostile(NamedTuple):
    """One request. ``verb`` is ``part`` for a message to a part subject, with its target."""

    verb: str
    target: str
    headers: dict[str, str]
    body: bytes


class Maker:
    """Makes requests, of ``digests`` and ``uploads`` that exist, and of everything else."""

    def __init__(self, seed: int, digests: list[str], uploads: list[str]) -> None:
        self._random = random.Random(seed)  # noqa: S311  (the same requests for the same seed)
        self._digests = digests
        self._uploads = uploads

    def make(self) -> Hostile:
        """The next request."""
        verb = self._random.choice((*VERBS, "part", "part"))
        headers = self._headers()
        if verb in {"put", "part"}:
            body = self._random.randbytes(self._random.choice((0, 1, 10, 1000)))
        else:
            body, packed = self._body(verb)
            if packed:
                headers["Content-Type"] = "application/msgpack"
        target = self._random.choice((*self._uploads, self._token(), "x" * 22))
        return Hostile(verb, target, headers, body)

    def _body(self, verb: str) -> tuple[bytes, bool]:
        packed = self._random.random() < 0.3
        style = self._random.random()
        if style < 0.06:
            return self._random.randbytes(self._random.randrange(200)), packed
        if style < 0.1:
            depth = self._random.choice((10, 1000, 20_000))
            opening = self._random.choice((b"[", b'{"digest":', b"\x91", b"\x81\xa1a"))
            return opening * depth, packed
        if style < 0.16 and verb == "get":
            return self._random.choice(self._digests).encode(), False
        message = self._message(verb)
        body = msgspec.msgpack.encode(message) if packed else json.dumps(message).encode()
        return self._mutated(body) if style < 0.5 else body, packed

    def _message(self, verb: str) -> dict[str, Any]:
        fields = FIELDS[verb]
        count = self._random.randint(0, len(fields))
        message = {name: self._value(name) for name in self._random.sample(fields, count)}
        if self._random.random() < 0.6 and fields[0] in {"digest", "upload", "digests"}:
            message[fields[0]] = self._good(fields[0])
        if self._random.random() < 0.05:
            message[self._token() or "surprise"] = self._value("surprise")
        return message

    def _good(self, name: str) -> Any:
        if name == "upload":
            return self._random.choice(self._uploads)
        digest = self._random.choice(self._digests)
        return [digest, "0" * 64] if name == "digests" else digest

    def _value(self, name: str) -> Any:
        if self._random.random() < 0.3:
            good = {"limit": 3, "offset": 5, "length": 7, "proxy": True, "space": "packs"}
            return good.get(name, self._good(name))
        return self._random.choice(
            (
                None,
                True,
                -1,
                0,
                2**31,
                2**53 + 1,
                2**63 - 1,
                -(2**63),
                0.5,
                1e308,
                -0.0,
                "",
                "../../etc/passwd",
                "a" * 5000,
                "A" * 64,
                "0" * 63 + "\n",
                "*",
                ">",
                "$JS.API.STREAM.DELETE.x",
                "\x00\x1b[2J\r\n",
                "\u202e\U0001f600é",
                [],
                {},
                [[[[]]]],
                ["0" * 64] * 1025,
                {"digest": "x"},
                "g1.0.5",
                "1.2.3",
                "99999999999999999999",
            )
        )

    def _headers(self) -> dict[str, str]:
        count = self._random.choice((0, 0, 1, 2, 4))
        return {name: self._header(name) for name in self._random.sample(HEADERS, count)}

    def _header(self, name: str) -> str:
        if self._random.random() < 0.3:
            good = {"Blob-Part": "0", "Blob-Final": "1", "Blob-Space": "packs", "Timeout": "5"}
            return good.get(name, "a/b")
        return self._random.choice(
            (
                "",
                "-1",
                "0",
                "1",
                "007",
                "1.0",
                "1e9",
                "nan",
                "9" * 40,
                "null",
                "true",
                "all",
                "../..",
                "a" * 3000,
                "\u0663",
                "\x00\x01\x7f",
                "a\tb",
                "a: b",
                "\U0001f600",
                "0" * 64,
                "F" * 64,
                "application/msgpack",
                "application/xml; charset=\x00",
            )
        )

    def _mutated(self, body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(changed) + 1)
            match self._random.randrange(4):
                case 0:
                    del changed[at:]
                case 1:
                    changed[at : at + 1] = self._random.randbytes(1)
                case 2:
                    changed[at:at] = self._random.randbytes(self._random.randrange(9))
                case _:
                    del changed[at : at + self._random.randrange(9)]
        return bytes(changed)

    def _token(self) -> str:
        return self._random.choice(("u", "x" * 300, "a.b.c", "$JS", "\u00e9", "*a", "a>b", "-"))
