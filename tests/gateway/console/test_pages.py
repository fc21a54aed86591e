"""Pages over a real gateway: what they show, what their forms do, and that nothing of it runs."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest
from tests.gateway.console.conftest import MARKUP, ODD
from tests.gateway.console.visitor import Visitor

from holdfast.errors import NotFoundError
from holdfast.protocol.names import NameRule
from holdfast.protocol.retention import KeepSnapshots

if TYPE_CHECKING:
    from tests.gateway.console.conftest import Shown

pytestmark = pytest.mark.nats

PAGES = (
    "/console",
    "/console/health",
    "/console/storage",
    "/console/snapshots",
    "/console/snapshots/{second}",
    "/console/snapshots/{second}/files",
    "/console/snapshots/{second}/files?path=posts",
    "/console/snapshots/{second}/file?path=posts/one.md",
    "/console/snapshots/{second}/file?path=logo.png",
    "/console/snapshots/{second}/diff",
    "/console/snapshots/{first}/diff",
    "/console/snapshots/{second}/restore",
    "/console/retention",
    "/console/retention?app={app}",
    "/console/names",
    "/console/names/one?name={name}",
    "/console/names/move?name={name}&to={name}",
    "/console/names/rules",
    "/console/blobs",
    "/console/blobs/{blob}",
    "/console/collection",
    "/console/states",
    "/console/states/one?name={state}",
    "/console/tokens",
)


@pytest.fixture(scope="session")
def name(shown: Shown) -> str:
    """A name with a history, and a state with a log and saves; all of it with markup."""
    name = f"odd/{MARKUP}\n/{secrets.token_hex(4)}"
    shown.holdfast.names.create(name, b"first", labels={"album": MARKUP})
    shown.holdfast.names.replace(name, b"second", labels={"album": MARKUP})
    return name


@pytest.fixture(scope="session")
def state(shown: Shown) -> str:
    """A state with a log and a save; all of it with markup."""
    name = f"orders/<b \"'&amp;\n{secrets.token_hex(4)}"
    shown.holdfast.states.append(name, {"said": MARKUP})
    shown.holdfast.states.append(name, b"\xff\x00")
    shown.holdfast.states.save(name, {}, last_applied_index=1)
    return name


@pytest.fixture(scope="session")
def places(shown: Shown, name: str, state: str) -> dict[str, str]:
    """The values for the braces in ``PAGES``."""
    return {
        "first": shown.first,
        "second": shown.second,
        "app": shown.app,
        "name": quote(name),
        "blob": shown.holdfast.names.stat(name).digest,
        "state": quote(state),
    }


@pytest.mark.fault("H10")
@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_nothing_that_is_not_a_file_of_ours(
    visitor: Visitor, places: dict[str, str], path: str
) -> None:
    page = visitor.open(path.format(**places))

    policy = page.answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert tag not in {"style", "iframe", "object", "embed", "base"}
        source = attributes.get("src", "/console/static/")
        assert source.startswith("/console/static/")
    assert [tag for tag, _ in page.elements].count("script") == 1


def test_a_page_can_be_used_by_whoever_does_not_see_it(
    visitor: Visitor, places: dict[str, str]
) -> None:
    for path in PAGES:
        page = visitor.open(path.format(**places))
        tags = [tag for tag, _ in page.elements]
        assert ("html", {"lang": "en"}) in page.elements
        assert tags.count("h1") == tags.count("main") == 1
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert page.links()[0] == "#main"


def test_the_console_is_what_is_at_the_root(visitor: Visitor) -> None:
    assert visitor.open("/").answer.url.path == "/console"


def test_the_pool_is_shown(visitor: Visitor) -> None:
    lines: list[str] = []
    while "one" not in lines or "objects" not in lines:  # what answers in time is there
        lines = visitor.open("/console").text.split()

    assert "Workers" in lines
    assert "Buckets" in lines


def test_what_is_wrong_is_told_and_everything_is_read_back_when_asked(visitor: Visitor) -> None:
    page = visitor.ended(visitor.open("/console/health"))
    assert "notice" in page.answer.text

    again = visitor.ended(visitor.send(page.form("/health")))

    assert "under way" in again.text or "the last" in again.text or "is to follow" in again.text


def test_what_is_stored_is_shown_by_app(visitor: Visitor, shown: Shown) -> None:
    page = visitor.ended(visitor.open("/console/storage"))

    assert shown.app in page.text
    assert any(tag == "svg" for tag, _ in page.elements)


def test_what_names_take_is_shown_below_a_prefix(visitor: Visitor, shown: Shown, name: str) -> None:
    first = name.split("/")[0] + "/"

    page = visitor.ended(visitor.open(f"/console/storage?prefix={quote(first)}"))

    assert page.link(quote(name.rpartition("/")[0], safe=""))
    assert "No name begins so" in visitor.ended(visitor.open("/console/storage?prefix=~")).text


@pytest.mark.fault("H10")
def test_what_others_wrote_is_shown_as_text(
    visitor: Visitor, shown: Shown, name: str, state: str
) -> None:
    listed = visitor.open(f"/console/snapshots?app={shown.app}")
    names = visitor.open("/console/names?prefix=odd/")
    below = visitor.open(names.link("prefix=odd"))
    one = visitor.open(f"/console/names/one?name={quote(name)}")
    log = visitor.open(f"/console/states/one?name={quote(state)}")

    assert f"why={MARKUP}" in listed.text
    assert MARKUP in names.text
    assert f"album={MARKUP}" in one.text
    assert MARKUP.replace('"', '\\"') in log.text
    for page in (listed, names, below, one, log):
        images = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
        assert len(images) == 1


def test_a_save_is_looked_at(visitor: Visitor, state: str) -> None:
    page = visitor.open(f"/console/states/one?name={quote(state)}")

    save = visitor.open(page.link("/states/save"))

    assert "{}" in save.text
    visitor.open(f"/console/states/save?name={quote(state)}&hash={'0' * 64}", 404)


def test_snapshots_are_found_by_app_label_state_and_day(visitor: Visitor, shown: Shown) -> None:
    def found(query: str) -> set[str]:
        links = visitor.open(f"/console/snapshots?{query}").links()
        return {link for link in links if shown.app + ":" in link}

    both = {f"/console/snapshots/{key}" for key in (shown.first, shown.second)}
    assert both <= found(f"app={shown.app}")
    assert found(f"label={quote('why=' + MARKUP)}") == {f"/console/snapshots/{shown.first}"}
    assert found(f"app={shown.app}&state=failure") == set()
    assert found(f"app={shown.app}&since=2999-01-01") == set()


def test_a_tree_is_walked_to_a_file_of_any_name(visitor: Visitor, shown: Shown) -> None:
    top = visitor.open(f"/console/snapshots/{shown.second}/files")
    below = visitor.open(top.link("path=posts"))
    file = visitor.open(below.link("/file?path=posts%2Fline"))
    saved = visitor.http.get(below.link("/raw?path=posts%2Fline"))

    assert "posts/" in top.text
    assert "one.md" not in top.text
    assert "line\\nbreak \\xff<b>\"'%2e.txt" in below.text
    assert "odd" in file.text
    assert saved.content == b"odd"
    assert saved.headers["Content-Disposition"].startswith("attachment;")
    assert quote(ODD) in below.link("/raw?path=posts%2Fline")


def test_a_file_is_looked_at_as_text_and_nothing_else(visitor: Visitor, shown: Shown) -> None:
    text = visitor.open(f"/console/snapshots/{shown.second}/file?path=posts/one.md")
    picture = visitor.open(f"/console/snapshots/{shown.second}/file?path=logo.png")

    assert "# One <script>alert(1)</script>" in text.text
    assert "This is no text" in picture.text


def test_all_of_a_snapshot_is_saved(visitor: Visitor, shown: Shown) -> None:
    page = visitor.open(f"/console/snapshots/{shown.first}")

    archive = visitor.http.get(page.link("/archive"))

    assert archive.content[:4] == b"\x28\xb5\x2f\xfd"


def test_what_changed_is_shown(visitor: Visitor, shown: Shown) -> None:
    page = visitor.open(f"/console/snapshots/{shown.second}/diff?from={shown.first}")

    assert "posts/two.md" in page.text
    assert "posts/one.md" not in page.text


def test_a_snapshot_is_made_held_and_forgotten(visitor: Visitor, shown: Shown) -> None:
    form = visitor.open("/console/snapshots").form("/console/snapshots")
    typed = {"app": shown.app, "labels": "why=a form, by=me", "exclude": "*.png\n/none"}
    made = visitor.ended(visitor.send(form, 200, **typed, read_all="yes"))
    key = made.answer.url.path.rpartition("/")[2]
    listed = visitor.open(f"/console/snapshots/{key}/files").text
    assert "posts/" in listed
    assert "logo.png" not in listed
    assert shown.holdfast.snapshots.get(key).labels == {"why": "a form", "by": "me"}

    held = visitor.send(made.form("/hold"), reason="an audit")
    assert "an audit" in held.text
    released = visitor.send(held.form("/hold"))
    assert not shown.holdfast.snapshots.get(key).held

    asked = visitor.send(released.form("/delete"))
    assert shown.holdfast.snapshots.get(key).state == "ok"
    visitor.send(asked.form("/delete"))
    with pytest.raises(NotFoundError):
        shown.holdfast.snapshots.get(key)


def test_a_restore_is_shown_before_it_is_done(visitor: Visitor, shown: Shown) -> None:
    target = f"{shown.app}-{secrets.token_hex(4)}"
    choice = visitor.open(f"/console/snapshots/{shown.first}/restore").form("/restore")

    typed = {"app": target, "paths": "posts/one.md", "owner": "current", "max_expansion": "9"}
    visitor.send(choice, 400, **{**typed, "owner": "nobody"})
    plan = visitor.ended(visitor.send(choice, 200, **typed))
    assert plan.form("/restore").fields["owner"] == "current"
    assert plan.form("/restore").fields["max_expansion"] == "9"
    assert "posts/one.md" in plan.text
    assert not (shown.apps / target).exists()

    visitor.send(plan.form("/restore"), status=400)
    assert not (shown.apps / target).exists()

    done = visitor.ended(visitor.send(plan.form("/restore"), sure="yes"))
    assert "It is done" in done.text
    assert [path.name for path in (shown.apps / target).rglob("*.md")] == ["one.md"]


def test_a_restore_is_confirmed_only_as_its_dry_run_was_asked_for(
    visitor: Visitor, shown: Shown
) -> None:
    choice = visitor.open(f"/console/snapshots/{shown.first}/restore").form("/restore")
    typed = {"app": f"{shown.app}-{secrets.token_hex(4)}", "paths": "posts/one.md\nlogo.png"}
    plan = visitor.ended(visitor.send(choice, 200, **typed))
    address = str(plan.answer.url)
    assert visitor.open(address).form("/restore").fields["paths"].split() == typed["paths"].split()

    others = (
        address.partition("?")[0],
        address.replace("logo.png", "other.png"),
        f"{address}&delete=yes",
        f"{address}&paths=",
        re.sub("seal=.", "seal=%C3%A9", address),
    )
    pages = [visitor.open(other) for other in others]
    with Visitor(shown.url) as somebody_else:
        somebody_else.open("/console")
        pages.append(somebody_else.open(address))

    assert not any("/restore" in form.action for page in pages for form in page.forms)
    assert all("cannot be confirmed" in page.text for page in pages)


def test_a_policy_is_tried_before_it_is_made(visitor: Visitor, shown: Shown) -> None:
    place = f"/console/retention?app={shown.app}"
    typed = {"last": "1", "labels": "keep=yes"}

    untried = visitor.send(visitor.open(place).form("/retention"), 200, do="save", **typed)
    changed = visitor.send(untried.form("/retention"), do="save", last="2")
    assert "It would remove" in untried.text
    assert "It would remove" in changed.text
    assert shown.holdfast.retention.policy(shown.app).keep is None

    visitor.send(untried.form("/retention"), 200, do="save", **typed)
    policy = shown.holdfast.retention.policy(shown.app).keep
    assert policy is not None
    assert (policy.last, policy.labels) == (1, [{"keep": "yes"}])

    shown.holdfast.retention.set_policy(KeepSnapshots(last=9), app=shown.app)
    visitor.send(untried.form("/retention"), 409, do="save", **typed)

    visitor.send(visitor.open(place).form("/retention"), do="none")
    assert shown.holdfast.retention.policy(shown.app).keep is None


def test_a_name_is_made_replaced_restored_and_removed(visitor: Visitor, shown: Shown) -> None:
    name = f"notes/{secrets.token_hex(4)}.txt"
    names = shown.holdfast.names
    names.set_rules([NameRule(prefix="notes/", keep_versions=5)])
    assert visitor.upload(visitor.open("/console/names"), b"one", name=name).status_code == 204
    page = visitor.open(f"/console/names/one?name={name}")
    assert visitor.upload(page, b"two", name=name, version="1").status_code == 204
    assert visitor.upload(page, b"late", name=name, version="1").status_code == 409
    assert names.get(name) == b"two"

    page = visitor.open(f"/console/names/one?name={name}")
    assert visitor.http.get(page.link("/raw")).content == b"two"
    page = visitor.send(page.form("/restore"))
    assert names.get(name) == b"one"

    asked = visitor.send(page.form("/delete"))
    assert names.get(name) == b"one"
    gone = visitor.send(asked.form("/delete"))
    assert "deleted" in gone.text


def test_a_link_is_made_and_followed_without_a_session(
    visitor: Visitor, shown: Shown, name: str
) -> None:
    pages = {
        f"/console/names/one?name={quote(name)}": b"second",
        f"/console/snapshots/{shown.first}/file?path=posts/{quote(ODD)}": b"odd",
    }
    for path, data in pages.items():
        made = visitor.send(visitor.open(path).form("/link"), seconds="3600", once="yes")
        (link,) = re.findall(r"http\S+X-Amz-Signature\S+", made.text)

        assert httpx.get(link, trust_env=False, timeout=60).content == data
        assert httpx.get(link, trust_env=False, timeout=60).status_code == 403


@pytest.mark.fault("H10")
@pytest.mark.parametrize("sent", [{}, {"form-token": ""}, {"form-token": "0" * 64}])
def test_a_form_that_is_not_ours_does_nothing(
    visitor: Visitor, shown: Shown, sent: dict[str, str]
) -> None:
    visitor.open("/console")
    path = f"/console/snapshots/{shown.first}/delete"

    assert visitor.http.post(path, data={**sent, "sure": "yes"}).status_code == 403
    with httpx.Client(base_url=shown.url, trust_env=False, timeout=60) as other:
        assert other.post(path, data={**sent, "sure": "yes"}).status_code == 403
    assert shown.holdfast.snapshots.get(shown.first).state == "ok"


@pytest.mark.fault("H10")
@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_form_that_another_page_sends_does_nothing(
    visitor: Visitor, shown: Shown, site: str
) -> None:
    form = visitor.open(f"/console/snapshots/{shown.first}").form("/delete")

    refused = visitor.http.post(
        form.action, data={**form.fields, "sure": "yes"}, headers={"Sec-Fetch-Site": site}
    )

    assert refused.status_code == 403
    assert shown.holdfast.snapshots.get(shown.first).state == "ok"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/snapshots/nonsense", 400),
        ("/console/snapshots?label=nonsense", 400),
        ("/console/snapshots?unknown=1", 400),
        ("/console/names/one", 400),
        ("/console/names/one?name=nobody", 404),
        ("/console/states/one?name=nobody", 404),
        ("/console/static/nothing", 404),
        ("/console/nothing/at/all", 404),
        ("/console/restores/0190b2b4-7c5e-7aaa-8bbb-123456789abc", 404),
    ],
)
def test_what_is_not_there_is_told_on_a_page(visitor: Visitor, path: str, status: int) -> None:
    page = visitor.open(path, status)

    assert page.answer.headers["Content-Type"].startswith("text/html")
    assert 'class="notice' in page.answer.text
