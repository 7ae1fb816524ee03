"""The strip under a picture that says which colour is which class, and how much of it there is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_BACKGROUND = 32
_NAME, _AREA, _ABSENT = 255, 176, 112  # grey levels of texts
# What OpenCV 5's own font has, and draws right; it neither joins letters nor turns their order.
_SCRIPTS = frozenset({"LATIN", "GREEK", "CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL"})


def draw_legend(
    names: Sequence[str],
    colours: NDArray[np.uint8],
    shares: Sequence[float],
    *,
    width: int,
    text_height: int,
) -> NDArray[np.uint8]:
    """All classes in their order, as many beside each other as fit.

    A clip's frames get strips of one size, since size and places do not depend on the shares.
    Names in scripts that OpenCV cannot draw appear as "class 7"; OpenCV 4 draws ASCII only. Names
    too long for the width are cut, and where that is small, shares are left out.

    Args:
        names: of K classes.
        colours: K×3, B, G, R.
        shares: fraction of the picture that each class holds.
        width: of the strip, in pixels.
        text_height: of a capital letter with its leading, in pixels.

    Returns:
        h×width×3 uint8 BGR.
    """
    texts = [_drawable(name, f"class {class_id}") for class_id, name in enumerate(names)]
    gap, line = text_height // 2, round(1.5 * text_height)
    area_width = _text_width("100.0 % ", text_height)
    room = width - text_height - 4 * gap - area_width
    if room < 4 * text_height:  # a small picture: names count more
        room, area_width = room + area_width, 0
    name_width = min(max(_text_width(text, text_height) for text in texts), max(room, 1))
    cell = gap + text_height + gap + name_width + gap + area_width
    columns = max(1, min(len(texts), (width - gap) // cell))
    rows = -(-len(texts) // columns)
    columns = -(-len(texts) // rows)  # as long as each other
    strip = np.full((rows * line + gap, width, 3), _BACKGROUND, np.uint8)
    for index, (text, share) in enumerate(zip(texts, shares, strict=True)):
        x, y = gap + index % columns * cell, gap + index // columns * line
        patch = strip[y : y + text_height, x : x + text_height]
        patch[:] = _NAME if share > 0 else _ABSENT  # a thin frame: colours may be dark, too
        patch[1:-1, 1:-1] = colours[index]
        baseline = y + round(0.85 * text_height)
        x += text_height + gap
        text = _shortened(text, name_width, text_height)
        _put_text(strip, text, (x, baseline), text_height, _NAME if share > 0 else _ABSENT)
        x += name_width + gap
        if share > 0 and area_width > 0:
            _put_text(strip, f"{share:.1%}"[:-1] + " %", (x, baseline), text_height, _AREA)
    return strip


def _drawable(text: str, instead: str) -> str:
    if text.isascii():
        return text if text.isprintable() else instead
    if not hasattr(cv2, "FontFace"):
        return instead
    letters = (unicodedata.name(letter, "").partition(" ")[0] for letter in text)
    known = (
        letter.isascii() or script in _SCRIPTS for letter, script in zip(text, letters, strict=True)
    )
    return text if text.isprintable() and all(known) else instead


def _shortened(text: str, width: int, height: int) -> str:
    if _text_width(text, height) <= width:
        return text
    kept = next(
        (n for n in range(len(text) - 1, 0, -1) if _text_width(text[:n] + "..", height) <= width), 0
    )
    return text[:kept] + ".."


def _text_width(text: str, height: int) -> int:
    if hasattr(cv2, "FontFace"):
        font = cv2.FontFace("sans")
        # From the pen's start to its end, which a blank at the end belongs to.
        _, _, width, _ = cv2.getTextSize((0, 0), text + "|", (0, 0), font, height, 400)
        return int(width)
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(0.75 * height), 1)
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0])


def _put_text(
    image: NDArray[np.uint8], text: str, place: tuple[int, int], height: int, grey: int
) -> None:
    """Draw a text whose baseline begins at (x, y)."""
    colour = (grey,) * 3
    if hasattr(cv2, "FontFace"):
        cv2.putText(image, text, place, colour, cv2.FontFace("sans"), height, 400)
        return
    face, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, height // 14)
    scale = cv2.getFontScaleFromHeight(face, round(0.75 * height), 1)
    cv2.putText(image, text, place, face, scale, colour, thickness, cv2.LINE_AA)
