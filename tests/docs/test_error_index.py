"""docs/errors.md has every message that the package can say, and no other."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT
from tests.docs.messages import ERRORS, Message, messages

MESSAGES = list(messages())
_ITEM = re.compile(r"^- ((?:`[^`]+`(?: ·\s)?)+)", re.MULTILINE)
PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
FRAGMENTS = [
    fragment for item in _ITEM.findall(PAGE) for fragment in re.findall(r"`([^`]+)`", item)
]


def test_every_message_is_in_the_index() -> None:
    missing = [m for m in MESSAGES if not any(m.has(fragment) for fragment in FRAGMENTS)]
    assert not missing, "add words of these to docs/errors.md:\n" + "\n".join(map(str, missing))


def test_the_index_has_no_other() -> None:
    unknown = [f for f in FRAGMENTS if not any(message.has(f) for message in MESSAGES)]
    assert not unknown, "the package no longer says this; mend docs/errors.md"


def test_every_class_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == ERRORS - {"EdgesegError"}


def test_messages_are_found() -> None:
    """The reader of the source reads: some that are written in different ways."""
    for words in (
        "the frame is None",  # a constant
        "is damaged: the SHA-256 of … is",  # an f-string
        "a finite number… was expected",  # the error's class is an argument
        "pixels do not fit",  # a variable's
        "falling back from the … target",  # a warning
    ):
        assert any(message.has(words) for message in MESSAGES), words


def test_gaps_are_any_text_and_words_are_not() -> None:
    message = Message(ROOT, 1, "the folder … does not exist; check the path")
    assert message.has("the folder … does not exist")
    assert not message.has("the file … does not exist")
    assert not message.has("does not exist … the folder")
