"""What is written as YAML reads back as it was, by a reader of the older, more surprising YAML."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.asyncapi import asyncapi_document
from holdfast.protocol.yaml_text import to_yaml

SURPRISING = [
    "", " ", "~", "null", "Null", "true", "True", "yes", "Yes", "no", "NO", "on", "off", "y", "n",
    "1", "-1", "1.5", "1e3", "0x1f", "0o17", "017", "1_000", "1:30", "12:30:45", ".inf", ".NaN",
    "2026-01-02", "2026-01-02T03:04:05Z", "=", "<<", "-", "- a", "a: b", "a:", ":a", "a #b", "#a",
    "[a]", "{a}", "a, b", "*a", "&a", "!a", "!!int 1", "|", ">", "%a", "@a", "`a`", "'a'", '"a"',
    "\\", "a\\nb", "a ", " a", "\ta", "a\n", "\na", "a\n\nb", "a\n b", "a\n\tb", "a\r\nb", "\r",
    "a\nb ", " a\nb", " \na", "a\n ", "\n\n",
    "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\U0001f600", "caf\xe9",
    "---", "...", "--- a", "?", "? a", "$ref", "#/a/b", "blob.part.{worker}", "urn:a:b",
]  # fmt: skip

texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(SURPRISING)
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10) | st.sampled_from(SURPRISING)
trees = st.dictionaries(
    keys,
    st.recursive(
        texts | st.integers() | st.booleans() | st.none(),
        lambda values: st.lists(values, max_size=4) | st.dictionaries(keys, values, max_size=4),
        max_leaves=20,
    ),
    max_size=4,
)


@given(trees)
def test_a_tree_reads_back_as_it_was(tree: dict[str, Any]) -> None:
    assert yaml.safe_load(to_yaml(tree)) == tree


@pytest.mark.parametrize("text", SURPRISING, ids=ascii)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    tree: dict[str, Any] = {"key": text, text: "value", "list": [text, [text], {text: text}]}

    assert yaml.safe_load(to_yaml(tree)) == tree


def test_the_order_is_kept() -> None:
    text = to_yaml({"b": 1, "a": 2})

    assert text == "b: 1\na: 2\n"


def test_it_is_written_for_people() -> None:
    tree: dict[str, Any] = {
        "title": "Store bytes.",
        "text": "One paragraph.\n\nAnother.",
        "empty": [{}, []],
        "list": [{"name": "a", "nested": [1, None]}, ["x", True]],
    }

    assert to_yaml(tree) == (
        "title: Store bytes.\n"
        "text: |-\n"
        "  One paragraph.\n"
        "\n"
        "  Another.\n"
        "empty:\n"
        "  - {}\n"
        "  - []\n"
        "list:\n"
        "  - name: a\n"
        "    nested:\n"
        "      - 1\n"
        "      - null\n"
        "  - - x\n"
        "    - true\n"
    )


def test_an_empty_document_is_an_empty_mapping() -> None:
    assert to_yaml({}) == "{}\n"


def test_the_asyncapi_document_reads_back_as_it_was() -> None:
    document = asyncapi_document()

    assert yaml.safe_load(to_yaml(document)) == document
