"""Somebody with a browser that has no script: opens pages, and sends the forms that are on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, override

import httpx

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

type Attributes = dict[str, str]
_VOID = frozenset({"input", "meta", "link", "img", "br"})


@dataclass
class PageForm:
    """A form: where it goes, and what it has of itself."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """A page as a browser sees it."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer = answer
        self.elements: list[tuple[str, Attributes]] = []
        self.forms: list[PageForm] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(answer.text)
        self.close()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "form":
            self.forms.append(PageForm(attributes.get("action", "")))
        elif "form" in self.open and _is_sent(tag, attributes):
            self.forms[-1].fields[attributes["name"]] = attributes.get("value", "")

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} ends what {self.open} began"

    @override
    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        """Where its links go."""
        return [attributes["href"] for tag, attributes in self.elements if tag == "a"]

    def link(self, part: str) -> str:
        """The first link that has ``part`` in it."""
        return next(link for link in self.links() if part in link)

    def form(self, part: str, **fields: str) -> PageForm:
        """The first form that goes where ``part`` is in, by sending, and has ``fields``."""
        return next(
            one
            for one in self.forms
            if part in one.action
            and "form-token" in one.fields
            and fields.items() <= one.fields.items()
        )


def _is_sent(tag: str, attributes: Attributes) -> bool:
    """Whether a form is sent with it as it is."""
    is_chosen = attributes.get("type") not in {"checkbox", "radio"} or "checked" in attributes
    return tag in {"input", "textarea"} and "name" in attributes and is_chosen


class Visitor:
    """See above. Pages come below ``/console``."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=60, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def open(self, path: str, status: int = 200) -> Page:
        """The page at ``path``, as the address bar has it."""
        answer = self.http.get(path)
        assert answer.status_code == status, answer.text
        return Page(answer)

    def send(self, form: PageForm, status: int = 200, **fields: str) -> Page:
        """Send a form with ``fields`` besides its own; the page that answers."""
        answer = self.http.post(form.action, data={**form.fields, **fields})
        assert answer.status_code == status, answer.text
        return Page(answer)

    def upload(self, page: Page, data: bytes, **query: str) -> httpx.Response:
        """As the script sends a file, by the form of ``page`` that takes one."""
        ours = next(attributes for _, attributes in page.elements if "data-upload" in attributes)
        headers = {"X-Form-Token": ours["data-form-token"], "Content-Type": "text/plain"}
        return self.http.post(ours["data-upload"], params=query, content=data, headers=headers)

    def ended(self, page: Page) -> Page:
        """The page once what it tells of is not under way any more: it is looked at again."""
        while any("data-refresh" in attributes for _, attributes in page.elements):
            page = self.open(str(page.answer.url))
        return page
