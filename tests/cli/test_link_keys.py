"""Files of keys and tokens are changed whole, and stay their owner's."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from holdfast.cli import main
from holdfast.cli.base import exit_codes
from holdfast.domain.link_keys import read_keys
from holdfast.gateway.tokens import read_tokens

if TYPE_CHECKING:
    from pathlib import Path


def test_keys_follow_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "keys")

    assert main(["link-key", "create", "one", "--file", path]) == exit_codes.OK
    assert main(["link-key", "create", "--since", "10m", "--lasts", "90d", "--file", path]) == 0
    assert main(["link-key", "end", "one", "--after", "7d", "--file", path]) == exit_codes.OK
    assert main(["link-key", "create", "one", "--file", path]) == exit_codes.CONFLICT
    assert main(["link-key", "end", "other", "--file", path]) == exit_codes.NOT_FOUND

    one, two = read_keys((tmp_path / "keys").read_bytes())
    assert one.until is not None
    assert two.until is not None
    assert two.since > one.since
    capsys.readouterr()
    assert main(["link-key", "ls", "--file", path]) == exit_codes.OK
    told = capsys.readouterr().out
    assert "one" in told
    assert one.secret not in told


def test_a_new_file_is_for_its_owner_and_another_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    assert main(["token", "create", "read:/", "--file", str(path)]) == exit_codes.OK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    path.chmod(0o640)
    assert main(["token", "create", "write:/store/", "--file", str(path)]) == exit_codes.OK

    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(read_tokens(path.read_bytes())) == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("scope", ["", "read", "read:", "read:store", "look:/", ":/"])
def test_what_is_no_scope_is_refused(tmp_path: Path, scope: str) -> None:
    assert main(["token", "create", scope, "--file", str(tmp_path / "t")]) == exit_codes.USAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoilt", ["nonsense", '{"keys": [{}]}'])
def test_a_file_that_is_spoilt_is_left_as_it_is(tmp_path: Path, spoilt: str) -> None:
    path = tmp_path / "keys"
    path.write_text(spoilt)

    assert main(["link-key", "create", "--file", str(path)]) == exit_codes.USAGE

    assert path.read_text() == spoilt


@pytest.mark.parametrize("words", [["link-key", "ls"], ["token", "ls"], ["token", "rm", "a1"]])
def test_a_command_that_is_told_no_file_says_what_to_set(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOLDFAST_LINK_KEYS", "HOLDFAST_GATEWAY_TOKENS"):
        monkeypatch.delenv(variable, raising=False)

    assert main(words) == exit_codes.USAGE

    assert "--file" in capsys.readouterr().err
