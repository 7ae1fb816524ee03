"""Links between the pages lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from tests.docs.blocks import PAGES, ROOT


def links(page: Path) -> Iterator[str]:
    """Targets of a page's links and pictures."""
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target and not re.match(r"[a-z]+:", str(target)):
                yield str(target)


def anchors(page: Path) -> set[str]:
    """Headings as GitHub and MyST name them."""
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    headings = (text.content for tag, text in pairwise(tokens) if tag.type == "heading_open")
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [(page, link) for page in PAGES for link in links(page)]


@pytest.mark.parametrize(
    ("page", "link"), LINKS, ids=[f"{page.relative_to(ROOT)}->{link}" for page, link in LINKS]
)
def test_link(page: Path, link: str) -> None:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    assert target.is_relative_to(ROOT), "outside of the repository"
    assert target.exists()
    if anchor:
        assert anchor in anchors(target)


def test_every_page_is_linked() -> None:
    linked = {(page.parent / link.partition("#")[0]).resolve() for page, link in LINKS}
    assert set(PAGES) <= linked


def test_readme_links_to_the_documentation() -> None:
    assert "docs/index.md" in set(links(ROOT / "README.md"))
