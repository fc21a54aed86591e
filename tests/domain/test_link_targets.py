"""The targets of links: paths arrive as they were sent, below a gateway's public address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.link_keys import LinkKey, LinkSigner
from holdfast.domain.link_targets import (
    PublicUrl,
    archive_path,
    blob_path,
    file_path,
    fits_path,
    name_place,
)
from holdfast.errors import InvalidError

NOW = datetime(2026, 11, 29, 23, 15, 7, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "scheme", "host", "base"),
    [
        ("https://files.example", "https", "files.example", ""),
        ("https://FILES.example:443/", "https", "files.example", ""),
        ("http://files.example:80/kept/", "http", "files.example", "/kept"),
        ("http://files.example:443", "http", "files.example:443", ""),
        ("http://[::1]:7777/a/b", "http", "[::1]:7777", "/a/b"),
    ],
)
def test_a_public_url_has_the_host_that_requests_name(
    url: str, scheme: str, host: str, base: str
) -> None:
    assert PublicUrl.parse(url) == PublicUrl(scheme, host, base)


@pytest.mark.parametrize(
    "url",
    ["", "files.example", "ftp://a", "https://", "https://a?b", "https://a#b", "https://u@a",
     "https://a:b", "https://[::1", "https://a:99999"],
)  # fmt: skip
def test_what_is_no_public_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="public URL"):
        PublicUrl.parse(url)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_a_name_is_found_again_in_its_path_or_in_its_query(name: str) -> None:
    path, query = name_place(name)

    if fits_path(name):
        assert (unquote(path), query) == (f"/store/{name}", "")
    else:
        assert path == "/store"
        assert parse_qs(query, keep_blank_values=True, strict_parsing=True) == {"name": [name]}


def test_snapshots_files_and_blobs_have_their_paths() -> None:
    key = "blog:01890a5d-ac96-774b-bcce-b302099a8057"

    assert archive_path(key) == f"/snapshots/{key}/archive"
    assert file_path(key, b"a b/\xff?") == f"/snapshots/{key}/files/a%20b/%FF%3F"
    assert blob_path("0" * 64) == "/blobs/" + "0" * 64


@pytest.mark.parametrize(("left", "holds"), [(None, 3600), (7200, 3600), (60, 60), (0.5, 1)])
def test_a_link_holds_no_longer_than_its_key(left: float | None, holds: int) -> None:
    until = None if left is None else NOW + timedelta(seconds=left)
    key = LinkKey(id="k", secret="0123456789abcdef", since=NOW - timedelta(days=1), until=until)
    signer = LinkSigner(lambda: [key], PublicUrl.parse("https://files.example/kept"))

    url, expires_at = signer.make("GET", "/blobs/0", "version=1", now=NOW, seconds=3600)

    assert url.startswith("https://files.example/kept/blobs/0?version=1&X-Amz-Algorithm=")
    assert f"X-Amz-Expires={holds}&" in url
    assert expires_at == NOW.replace(microsecond=0) + timedelta(seconds=holds)
