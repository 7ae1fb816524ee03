"""Every code block of the documentation is run, in the order of its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.blocks import PAGES, Block, blocks
from tests.docs.pages import Page, runs

LANGUAGES = {"python", "sh", "toml", "json", "cpp", "cmake", "text"}
ALL = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and records go elsewhere; small networks are faster on one thread."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Page]]:
    stand_ins = tmp_path_factory.mktemp("stand_ins")
    opened: dict[Path, Page] = {}

    class Pages(dict[Path, Page]):
        def __missing__(self, path: Path) -> Page:
            self[path] = Page(path, tmp_path_factory.mktemp(path.stem), stand_ins)
            return self[path]

    opened = Pages()
    yield opened
    for page in opened.values():
        page.close()


@pytest.mark.parametrize("block", ALL, ids=str)
def test_block(block: Block, pages: dict[Path, Page]) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    if not runs(block):
        pytest.skip(f"{block.needs} is not installed")
    pages[block.page].run(block)


@pytest.mark.parametrize("block", ALL, ids=str)
def test_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, "fence it, with a language that the tests know"


def test_blocks_are_found() -> None:
    assert {"README.md", "SECURITY.md", "index.md", "tutorial.md"} <= {
        page.name for page in PAGES if blocks(page)
    }
