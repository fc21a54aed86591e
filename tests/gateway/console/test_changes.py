"""An admin's changes in the console: each form does what it says, once it was confirmed."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest

from holdfast.domain.digest import digest_of
from holdfast.errors import NotFoundError
from holdfast.protocol.names import NameRule

if TYPE_CHECKING:
    from tests.gateway.console.conftest import Shown
    from tests.gateway.console.visitor import Page, Visitor

pytestmark = pytest.mark.nats


def name_page(visitor: Visitor, name: str, status: int = 200) -> Page:
    return visitor.open(f"/console/names/one?name={quote(name)}", status)


def link_on(page: Page) -> str:
    (link,) = re.findall(r"http\S+X-Amz-Signature[^\s']+", page.text)
    return str(link)


# --- names ---


def test_a_name_is_copied_where_it_was_shown_what_is_there(visitor: Visitor, shown: Shown) -> None:
    names, odd = shown.holdfast.names, f"copy/<b>\n{secrets.token_hex(4)}"
    names.create(f"{odd}-1", b"one", labels={"by": "me"})
    move = f"/console/names/move?name={quote(odd)}-1&to={quote(odd)}-2"
    asked = visitor.open(move)
    assert "is free" in asked.text

    visitor.send(asked.form("/names/move"), do="copy")
    assert names.get(f"{odd}-2") == b"one"
    assert names.stat(f"{odd}-2").labels == {"by": "me"}

    visitor.send(asked.form("/names/move"), 409, do="copy")
    visitor.send(visitor.open(move).form("/names/move"), do="copy")
    assert names.stat(f"{odd}-2").version == 2


def test_a_name_is_renamed(visitor: Visitor, shown: Shown) -> None:
    names, name = shown.holdfast.names, f"rename/{secrets.token_hex(4)}"
    names.create(name, b"one")
    asked = visitor.open(f"/console/names/move?name={name}&to={name}-new")

    visitor.send(asked.form("/names/move"), do="rename")

    assert names.get(f"{name}-new") == b"one"
    with pytest.raises(NotFoundError):
        names.stat(name)


def test_a_name_takes_an_older_version_again_only_while_it_has_what_was_shown(
    visitor: Visitor, shown: Shown
) -> None:
    names, name = shown.holdfast.names, f"again/{secrets.token_hex(4)}"
    names.set_rules([NameRule(prefix="again/", keep_versions=9)])
    names.create(name, b"one")
    names.replace(name, b"two")
    form = name_page(visitor, name).form("/names/restore", version="1")

    names.replace(name, b"of a colleague")
    visitor.send(form, 409)
    assert names.get(name) == b"of a colleague"

    names.delete(name)
    form = name_page(visitor, name).form("/names/restore", version="1")
    names.create(name, b"of a colleague again")
    visitor.send(form, 409)
    names.delete(name)
    visitor.send(name_page(visitor, name).form("/names/restore", version="1"))
    assert names.get(name) == b"one"


def test_a_name_gets_other_labels_and_an_end_with_the_same_bytes(
    visitor: Visitor, shown: Shown
) -> None:
    names, name = shown.holdfast.names, f"labels/{secrets.token_hex(4)}"
    names.create(name, b"one", type="text/plain", labels={"by": "me"})
    form = name_page(visitor, name).form("/names/labels")

    visitor.send(form, labels="album=sea\nby=you", expires="2999-01-31")

    stat = names.stat(name)
    assert (stat.labels, stat.type) == ({"album": "sea", "by": "you"}, "text/plain")
    assert stat.expires_at is not None
    assert stat.expires_at.startswith("2999-01-31")
    assert names.get(name) == b"one"
    visitor.send(form, 409, labels="")


def test_a_file_is_stored_with_labels_and_an_end(visitor: Visitor, shown: Shown) -> None:
    name = f"stored/{secrets.token_hex(4)}"

    answer = visitor.upload(
        visitor.open("/console/names"), b"one", name=name, labels="by=me", expires="2999-01-31"
    )

    assert answer.status_code == 204
    assert visitor.http.get(answer.headers["Location"]).status_code == 200
    stat = shown.holdfast.names.stat(name)
    assert stat.labels == {"by": "me"}
    assert stat.expires_at is not None


def test_rules_of_names_are_made_changed_and_removed(visitor: Visitor, shown: Shown) -> None:
    names, prefix = shown.holdfast.names, f"rules <b>/{secrets.token_hex(4)}/"
    before = visitor.open("/console/names/rules")
    asked = {"kind": "prefix", "text": prefix}

    def rule() -> list[tuple[int | None, int | None]]:
        found = [one for one in names.rules().rules if one.prefix == prefix]
        return [(one.keep_versions, one.expire_seconds) for one in found]

    visitor.send(before.form("/rules", do="set"), 400, **asked, versions="5")
    made = visitor.send(before.form("/rules", do="set"), 200, **asked, versions="5", sure="yes")
    assert prefix in made.text
    assert rule() == [(5, None)]
    visitor.send(before.form("/rules", do="set"), 409, **asked, versions="6", sure="yes")

    made = visitor.send(made.form("/rules", do="set"), 200, **asked, expire="30d", sure="yes")
    assert rule() == [(None, 30 * 86400)]

    visitor.send(made.form("/rules", do="remove", text=prefix))
    assert rule() == []


def test_a_free_name_is_given_by_a_link_for_one_upload(visitor: Visitor, shown: Shown) -> None:
    name = f"given/{secrets.token_hex(4)}"
    page = name_page(visitor, name, 404)
    assert "it is free" in page.text

    link = link_on(visitor.send(page.form("/names/link", upload="yes"), seconds="3600"))

    assert httpx.put(link, content=b"theirs", trust_env=False, timeout=60).status_code == 201
    again = httpx.put(link, content=b"again", trust_env=False, timeout=60)
    assert again.status_code in {403, 409, 412}
    assert shown.holdfast.names.get(name) == b"theirs"


def test_a_link_is_to_a_version_or_to_what_the_name_has_by_then(
    visitor: Visitor, shown: Shown
) -> None:
    names, name = shown.holdfast.names, f"linked/{secrets.token_hex(4)}"
    names.set_rules([NameRule(prefix="linked/", keep_versions=5)])
    names.create(name, b"one")
    names.replace(name, b"two")
    form = name_page(visitor, name).form("/names/link")

    first, latest = (link_on(visitor.send(form, seconds="60", of=of)) for of in ("1", "latest"))
    names.replace(name, b"three")

    assert httpx.get(first, trust_env=False, timeout=60).content == b"one"
    assert httpx.get(latest, trust_env=False, timeout=60).content == b"three"


# --- blobs ---


def test_a_blob_is_stored_looked_at_named_and_deleted(visitor: Visitor, shown: Shown) -> None:
    data = f"<script>{secrets.token_hex(8)}</script>".encode()
    stored = visitor.upload(visitor.open("/console/blobs"), data)
    digest = digest_of(data)
    assert stored.headers["Location"] == f"/console/blobs/{digest}"

    found = visitor.open(f"/console/blobs?prefix={digest}")
    assert found.answer.url.path == f"/console/blobs/{digest}"
    assert data.decode() in found.text
    assert "until it is deleted" in found.text
    assert visitor.http.get(found.link("/raw")).content == data
    assert digest[:16] in visitor.open(f"/console/blobs?prefix={digest[:16]}").text

    name = f"blob/{secrets.token_hex(4)}"
    asked = visitor.open(f"/console/names/move?digest={digest}&to={name}")
    visitor.send(asked.form("/names/move"), do="copy")
    assert shown.holdfast.names.get(name) == data

    sure = visitor.send(found.form("/delete"))
    assert digest in sure.text
    assert shown.holdfast.stat(digest).pinned
    visitor.send(sure.form("/delete"))
    assert shown.holdfast.names.get(name) == data


def test_a_blob_that_a_name_keeps_is_kept_by_itself_when_asked(
    visitor: Visitor, shown: Shown
) -> None:
    name, data = f"kept/{secrets.token_hex(4)}", secrets.token_bytes(20)
    shown.holdfast.names.create(name, data)
    page = visitor.open(f"/console/blobs/{digest_of(data)}")
    assert name in page.text
    assert "while something needs it" in page.text

    pinned = visitor.send(page.form("/pin"))

    assert "until it is deleted" in pinned.text
    shown.holdfast.names.delete(name)
    assert shown.holdfast.get(digest_of(data)) == data


def test_a_blob_that_is_not_there_is_uploaded_by_a_link(visitor: Visitor, shown: Shown) -> None:
    data = secrets.token_bytes(20)
    page = visitor.open(f"/console/blobs/{digest_of(data)}", 404)

    other, link = (
        link_on(visitor.send(page.form("/link", upload="yes"), seconds="3600")) for _ in range(2)
    )

    assert httpx.put(other, content=b"other", trust_env=False, timeout=60).status_code == 400
    assert httpx.put(link, content=data, trust_env=False, timeout=60).status_code == 201
    assert shown.holdfast.get(digest_of(data)) == data


# --- reading back, and collecting ---


def read_back(visitor: Visitor, page: Page) -> Page:
    """The page once all parts were read, as the script goes on."""
    while [one for one in page.elements if "data-go-on" in one[1]]:
        page = visitor.send(page.form("/verify"))
    return page


def test_everything_is_read_back(visitor: Visitor, shown: Shown) -> None:
    state = f"read/{secrets.token_hex(4)}"
    shown.holdfast.states.append(state, {"add": 1})
    shown.holdfast.states.save(state, {}, last_applied_index=1)
    data = secrets.token_bytes(20)
    shown.holdfast.put(data)
    places = (
        "/console/blobs",
        f"/console/blobs/{digest_of(data)}",
        f"/console/snapshots/{shown.first}",
        f"/console/states/one?name={quote(state)}",
    )

    for place in places:
        page = read_back(visitor, visitor.send(visitor.open(place).form("/verify")))
        assert "Everything is as it was stored" in page.text


def test_what_was_found_so_far_goes_with_the_form_that_goes_on(visitor: Visitor) -> None:
    form = visitor.open("/console/blobs").form("/blobs/verify")

    page = visitor.send(form, blobs="1000", bytes="0", damaged="<b> is damaged", damaged_count="1")

    page = read_back(visitor, page)
    assert "1 damaged" in page.text
    assert "<b> is damaged" in page.text
    assert re.search(r"1,[0-9]{3}", page.text)


def test_a_collection_is_shown_before_it_is_done(visitor: Visitor, shown: Shown) -> None:
    data = secrets.token_bytes(20)
    shown.holdfast.put(data)
    about = visitor.open("/console/collection")

    dry = visitor.send(about.form("/collection"))
    assert "Reason kept" in dry.text
    visitor.send(dry.form("/collection", do="collect"), 400)
    done = visitor.send(dry.form("/collection", do="collect"), sure="yes")

    assert "It is done" in done.text
    assert shown.holdfast.get(digest_of(data)) == data


# --- snapshots ---


def test_all_snapshots_of_an_app_are_forgotten_once_its_name_is_typed(
    visitor: Visitor, shown: Shown
) -> None:
    app = f"gone-{secrets.token_hex(4)}"
    (shown.apps / app).mkdir()
    key = shown.holdfast.snapshots.create(app).key
    shown.holdfast.retention.hold(key)
    asked = visitor.send(visitor.open(f"/console/snapshots?app={app}").form("/purge"))

    visitor.send(asked.form("/purge"), typed="other")
    assert shown.holdfast.snapshots.get(key).held
    visitor.send(asked.form("/purge"), typed=app)

    with pytest.raises(NotFoundError):
        shown.holdfast.snapshots.get(key)


# --- states ---


def state_page(visitor: Visitor, name: str, status: int = 200) -> Page:
    return visitor.open(f"/console/states/one?name={quote(name)}", status)


def test_a_state_is_begun_and_goes_on_while_it_is_as_it_was_shown(
    visitor: Visitor, shown: Shown
) -> None:
    name = f'begun/<b "&{secrets.token_hex(4)}'
    form = state_page(visitor, name, 404).form("/append")

    page = visitor.send(form, command='{"add": 1}')
    visitor.send(form, 409, command='{"add": 2}')
    visitor.send(page.form("/append"), 400, command="{")
    visitor.send(page.form("/append"), command='{"add": 3}')

    commands = [one.command for one in shown.holdfast.states.replay(name)]
    assert commands == [{"add": 1}, {"add": 3}]


def test_a_state_is_trimmed_repaired_and_removed_once_that_is_confirmed(
    visitor: Visitor, shown: Shown
) -> None:
    states, name = shown.holdfast.states, f"mended/{secrets.token_hex(4)}"
    for number in range(6):
        states.append(name, {"add": number})
    for index in (2, 4):
        states.save(name, {"index": index}, last_applied_index=index)

    asked = visitor.send(state_page(visitor, name).form("/trim"), through="2")
    assert states.first_index(name) == 1
    visitor.send(asked.form("/trim"))
    assert states.first_index(name) == 3

    asked = visitor.send(state_page(visitor, name).form("/repair"), 200, **{"from": "6"})
    assert states.page(name, 3).last_index == 6
    visitor.send(asked.form("/repair"))
    assert states.page(name, 3).last_index == 5

    asked = visitor.send(state_page(visitor, name).form("/remove"))
    assert states.page(name, 3).last_index == 5
    visitor.send(asked.form("/remove"))
    state_page(visitor, name, 404)


def test_a_state_is_saved_from_a_file(visitor: Visitor, shown: Shown) -> None:
    states, name = shown.holdfast.states, f"saved/{secrets.token_hex(4)}"
    states.append_many(name, [{"add": 1}, {"add": 2}])
    page = state_page(visitor, name)

    for query in ({"index": "1", "kind": "json"}, {"index": "2", "kind": "bytes"}):
        answer = visitor.upload(page, b'{ "b": 1, "a": 2 }', name=name, **query)
        assert answer.status_code == 204

    newest, before = states.saves(name)
    assert (newest.kind, newest.last_applied_index) == ("bytes", 2)
    assert (before.kind, before.last_applied_index, before.size) == ("json", 1, 13)
    assert visitor.upload(page, b"{", name=name, index="2", kind="json").status_code == 400


def test_what_is_kept_of_a_state_is_changed(visitor: Visitor, shown: Shown) -> None:
    name = f"policy/{secrets.token_hex(4)}"
    shown.holdfast.states.append(name, {})
    form = state_page(visitor, name).form("/policy")

    page = visitor.send(form, save_every="500", keep="7", keep_for="30d", trim="yes")

    policy = shown.holdfast.states.policy(name)
    assert (policy.save_every, policy.keep, policy.trim) == (500, 7, True)
    assert policy.keep_seconds == 30 * 86400
    assert page.form("/policy").fields["keep_for"] == "30d"


def test_what_is_kept_of_a_state_is_changed_only_while_it_is_as_it_was_shown(
    visitor: Visitor, shown: Shown
) -> None:
    name = f"policy/{secrets.token_hex(4)}"
    shown.holdfast.states.append(name, {})
    form = state_page(visitor, name).form("/policy")

    shown.holdfast.states.set_policy(name, keep=50)
    visitor.send(form, 409, save_every="500")
    assert shown.holdfast.states.policy(name).keep == 50

    visitor.send(state_page(visitor, name).form("/policy"), save_every="500")
    policy = shown.holdfast.states.policy(name)
    assert (policy.save_every, policy.keep) == (500, 50)


def test_what_was_typed_wrong_changes_nothing(visitor: Visitor, shown: Shown) -> None:
    name = f"typed/{secrets.token_hex(4)}"
    shown.holdfast.names.create(name, b"one")
    form = name_page(visitor, name).form("/names/labels")

    for wrong in ({"labels": "nonsense"}, {"expires": "tomorrow"}, {"version": "x"}):
        visitor.send(form, 400, **wrong)

    stat = shown.holdfast.names.stat(name)
    assert (stat.version, stat.expires_at) == (1, None)
    visitor.open(f"/console/names/move?to={name}", 400)
    visitor.open(f"/console/names/move?name={name}&digest={stat.digest}&to=x", 400)
    visitor.open("/console/blobs?prefix=zz", 400)
    visitor.open("/console/blobs/nonsense", 400)
