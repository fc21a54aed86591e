"""``holdfast token``: rights at gateways. Tokens are shown once; a file keeps their hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from holdfast.cli.base.arguments import Json, parse_long_duration
from holdfast.cli.base.kept_file import change_file, read_file
from holdfast.cli.base.output import print_line, print_result, say
from holdfast.gateway.tokens import Token, new_token, read_tokens, without, write_tokens
from holdfast.runtime.escapes import escape_control
from holdfast.sources import utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence

app = App(name="token", help_format="plaintext")

_VARIABLE = "HOLDFAST_GATEWAY_TOKENS"
TokensFile = Annotated[str | None, Parameter(help=f"The file of tokens; by default ${_VARIABLE}.")]


@app.command
def create(
    scopes: Annotated[list[str], Parameter(help="RIGHT:PREFIX, such as write:/store/photos/.")],
    /,
    *,
    file: TokensFile = None,
    expires: Annotated[str | None, Parameter(help="Time until it ends: 90d, say.")] = None,
    note: Annotated[str, Parameter(help="A note, such as its owner.")] = "",
) -> None:
    """Add a token to the file, which is made if there is none, and print it: it is not kept.

    The right is read, write (which may read) or admin (which may do everything), for paths that
    begin with the prefix: end that with a / to mean what is below. read:/ is for everything.
    """
    now = utc_now().replace(microsecond=0)
    text, token = new_token(
        scopes,
        now=now,
        expires_at=None if expires is None else now + parse_long_duration(expires),
        note=escape_control(note),
    )

    def added(tokens: Sequence[Token]) -> Sequence[Token]:
        return (*tokens, token)

    change_file(file, _VARIABLE, read_tokens, write_tokens, added, is_new=True)
    print_line(text)
    say("this is the only time that it is shown")


@app.command
def ls(*, file: TokensFile = None, json: Json = False) -> None:
    """List the tokens, of which the file has hashes only: id, scopes, until when, note."""
    for token in read_file(file, _VARIABLE, read_tokens):
        until = None if token.expires_at is None else token.expires_at.isoformat()
        told = {
            "id": token.id,
            "scopes": list(token.scopes),
            "created_at": token.created_at.isoformat(),
            "expires_at": until,
            "note": token.note,
        }
        columns = (token.id, " ".join(token.scopes), until or "-", token.note)
        print_result(told, *columns, json=json)


@app.command
def rm(
    ids: Annotated[list[str], Parameter(help="Ids of the tokens.")],
    /,
    *,
    file: TokensFile = None,
) -> None:
    """Remove tokens: gateways refuse them at once."""

    def left(tokens: Sequence[Token]) -> Sequence[Token]:
        return without(tokens, ids)

    change_file(file, _VARIABLE, read_tokens, write_tokens, left)
    for id_ in ids:
        print_line(id_, "removed")
