"""The console in a browser, as somebody uses it: clicked through, with an eye on its log.

It takes Debian's chromium, or what ``HOLDFAST_CHROMIUM`` names, and ``axe-core`` of ``tests/js``;
where one of them is missing these tests are skipped.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.js import scripts

from holdfast.protocol.names import NameRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize
    from tests.gateway.console.conftest import Shown

pytestmark = [pytest.mark.nats, pytest.mark.long]

FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
AXE: Final = scripts.HERE / "node_modules/axe-core/axe.min.js"
PHONE: Final[ViewportSize] = {"width": 360, "height": 740}
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 800}
MORE_THAN_A_PART: Final = 120
PATIENCE_MS: Final = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("HOLDFAST_CHROMIUM") or shutil.which("chromium")
    if program is None or not AXE.is_file():
        pytest.skip("chromium, or the packages of tests/js/package.json, are not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, shown: Shown) -> Iterator[Page]:
    """A page of its own; whatever its log says at the end is a failure."""
    with browser.new_context(base_url=shown.url, viewport=DESKTOP) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        said: list[str] = []

        def note(message: ConsoleMessage) -> None:
            said.append(f"{message.type}: {message.text}")

        page.on("console", note)
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page
        assert said == []


SERIOUS: Final = """
async (rules) => {
  const options = { resultTypes: ["violations"], ...(rules.length && { runOnly: rules }) };
  const { violations } = await axe.run(options);
  const isSerious = (one) => ["serious", "critical"].includes(one.impact);
  return violations.filter(isSerious).map((one) => `${one.id} ${one.nodes[0].html}`);
}
"""


def violations(page: Page, *rules: str) -> list[str]:
    """The faults that axe-core finds serious on the page, by all of its rules or by ``rules``.

    It runs beside the page, which allows no script.
    """
    return [f"{page.url}: {one}" for one in page.evaluate(SERIOUS, list(rules))]


def test_an_app_is_archived_looked_at_compared_and_restored(page: Page, shown: Shown) -> None:
    app = f"wiki-{secrets.token_hex(4)}"
    (shown.apps / app).mkdir()
    (shown.apps / app / "start.md").write_text("# Start here")
    page.goto("/")
    page.get_by_role("link", name="Snapshots", exact=True).click()
    for text in ("first", "second"):
        page.goto("/console/snapshots")
        archive = page.locator("form", has=page.get_by_role("button", name="Archive it"))
        archive.get_by_label("App").fill(app)
        archive.get_by_label("Labels").fill(f"why={text}")
        archive.get_by_role("button").click()
        page.get_by_role("link", name="Look at its files").wait_for()
        (shown.apps / app / "next.md").write_text("# Next")

    page.get_by_role("link", name="Look at its files").click()
    page.get_by_role("link", name="start.md", exact=True).click()
    page.get_by_text("# Start here").wait_for()
    page.get_by_role("link", name="Differences").click()
    page.get_by_role("cell", name="next.md").wait_for()

    page.get_by_role("link", name="Restore").click()
    page.get_by_label("Into the app").fill(f"{app}-copy")
    page.get_by_role("button", name="See what it would do").click()
    page.get_by_role("checkbox").check()
    assert not (shown.apps / f"{app}-copy").exists()
    page.get_by_role("button", name="Restore it").click()
    page.get_by_text("It is done").wait_for()
    assert (shown.apps / f"{app}-copy" / "next.md").read_text() == "# Next"


def test_a_link_is_made_and_saves_a_file(page: Page, shown: Shown, tmp_path: Path) -> None:
    page.goto(f"/console/snapshots/{shown.second}/file?path=posts/one.md")
    page.get_by_role("button", name="Make a link").click()

    with page.expect_download() as saving:
        page.get_by_role("link", name="Try it").click()

    saving.value.save_as(tmp_path / "saved")
    kept = shown.apps / shown.app / "posts" / "one.md"
    assert (tmp_path / "saved").read_bytes() == kept.read_bytes()


def test_a_policy_is_written_after_its_dry_run(page: Page, shown: Shown) -> None:
    page.goto(f"/console/retention?app={shown.app}")
    page.get_by_label("of all").fill("1")
    page.get_by_role("button", name="See what it would remove").click()
    page.get_by_text("would go").first.wait_for()
    page.get_by_role("button", name="Make it the policy").click()
    page.get_by_role("button", name="Have no policy").click()
    page.get_by_text("No policy holds").wait_for()


def test_a_name_is_stored_and_replaced_and_has_a_history(
    page: Page, shown: Shown, tmp_path: Path
) -> None:
    shown.holdfast.names.set_rules([NameRule(prefix="notes/", keep_versions=5)])
    file = tmp_path / "note.txt"
    name = f"notes/{secrets.token_hex(4)} & <b>.txt"
    page.goto("/console/names")
    page.get_by_label("Name", exact=True).fill(name)
    file.write_text("one")
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Store it").click()
    page.get_by_role("heading", name=name).wait_for()
    file.write_text("two")
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Replace it").click()
    page.get_by_role("button", name="Give it this version 1").wait_for()

    assert shown.holdfast.names.get(name) == b"two"
    assert page.locator("section", has_text="History").get_by_text("ok").count() >= 2


def test_reading_everything_back_goes_on_by_itself(page: Page, shown: Shown) -> None:
    many = (f"{secrets.token_hex(8)}".encode() for _ in range(MORE_THAN_A_PART))
    assert len(list(shown.holdfast.put_many(many))) == MORE_THAN_A_PART
    page.goto("/console/blobs")
    page.get_by_role("button", name="Read all blobs back").click()

    page.get_by_text("Everything is as it was stored").wait_for()


def test_a_collection_is_done_after_it_was_shown(page: Page) -> None:
    page.goto("/console/storage")
    page.get_by_role("link", name="See what a collection would remove").click()
    page.get_by_role("button", name="See what would go").click()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Collect it").click()

    page.get_by_text("It is done").wait_for()


def test_everybody_can_use_it_on_a_desktop_and_on_a_phone(browser: Browser, shown: Shown) -> None:
    stored = shown.holdfast.names.put("photos/sea.jpg", b"sea", labels={"album": "sea"})
    shown.holdfast.states.append("orders", {"add": "apple"})
    snapshot = f"/snapshots/{shown.second}"
    pages = (
        *("", "/health", "/storage", "/collection", "/snapshots", "/names", "/blobs", "/states"),
        *(f"{snapshot}{path}" for path in ("", "/files", "/diff", "/restore")),
        f"{snapshot}/file?path=posts/one.md",
        f"/retention?app={shown.app}",
        "/names/one?name=photos/sea.jpg",
        "/names/move?name=photos/sea.jpg&to=a",
        "/names/rules",
        f"/blobs/{stored.digest}",
        "/states/one?name=orders",
        "/tokens",
        "/names/one?name=nobody",
    )
    found, wide = [], []
    with browser.new_context(base_url=shown.url, reduced_motion="reduce") as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        for path in pages:
            page.goto(f"/console{path}")
            page.locator("body:not([data-refresh])").wait_for()
            page.evaluate(AXE.read_text())
            page.set_viewport_size(DESKTOP)
            page.emulate_media(color_scheme="light")
            found += violations(page)
            page.set_viewport_size(PHONE)
            page.emulate_media(color_scheme="dark")
            found += violations(page, "color-contrast", "scrollable-region-focusable")
            if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
                wide.append(path)

    assert (found, wide) == ([], [])
