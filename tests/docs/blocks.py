"""The code blocks of a Markdown page, and what an invisible comment before one says of it.

    <!-- not run: REASON -->         it needs what no test machine has; the tests skip it, visibly
    <!-- needs: MODULE -->           it is run where that Python module is installed
    <!-- until interrupted -->       a command that goes on by itself; it gets Ctrl-C with the page

A block whose first line is a comment with a file's name (`# label.py`) is written to that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))

_REMARK = re.compile(r"<!--\s*(not run|needs|until interrupted)(?::\s*(.+?))?\s*-->", re.DOTALL)
_FILE = re.compile(r"(?:#|//) (\S+\.[a-z]+)\n")


@dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
        page: the file.
        line: of its first line of code, from 1.
        language: as the fence says; empty where it says nothing.
        code: its text.
        not_run: why it is not run.
        needs: module without which it is not run.
        endless: whether it runs until it is interrupted.
    """

    page: Path
    line: int
    language: str
    code: str
    not_run: str = ""
    needs: str = ""
    endless: bool = False

    def __str__(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it is to be written to."""
        named = _FILE.match(self.code)
        return named[1] if named else None


def blocks(page: Path) -> list[Block]:
    """Every code block of a page, in order."""
    found = []
    remark: dict[str, str] = {}
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "html_block":
            if said := _REMARK.fullmatch(token.content.strip()):
                remark[said[1]] = " ".join((said[2] or "").split())
            continue
        if token.type in ("fence", "code_block") and not token.info.startswith("{"):  # Sphinx's
            assert token.map is not None
            found.append(
                Block(
                    page,
                    token.map[0] + (2 if token.type == "fence" else 1),
                    token.info.strip(),
                    token.content,
                    not_run=remark.get("not run", ""),
                    needs=remark.get("needs", ""),
                    endless="until interrupted" in remark,
                )
            )
        remark = {}
    return found
