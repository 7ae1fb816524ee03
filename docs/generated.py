"""Parts of the pages that are made from the source, as Markdown."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from inspect import cleandoc
from pathlib import Path

from edgeseg.data import Augmentation
from edgeseg.recipes import PRESETS, TrainConfig


def command_line() -> str:
    """Every command with its arguments and options, by Typer."""
    command = [sys.executable, "-m", "typer", "edgeseg.cli", "utils", "docs", "--name", "edgeseg"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, heading, commands = text.partition("## `edgeseg ")
    return heading + commands


def recipe_fields() -> str:
    """The fields of a recipe: meaning and default."""
    return _fields(TrainConfig)


def augmentation_fields() -> str:
    """The fields of a recipe's augmentation."""
    return _fields(Augmentation, "augmentation.")


def recipes() -> str:
    """The recipes by name, with where they differ from the defaults."""
    rows = ["| recipe | what is not the default |", "|---|---|"]
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    for name, recipe in PRESETS.items():
        changed = ", ".join(
            f"`{key}={value}`"
            for key, value in vars(recipe).items()
            if key != "augmentation" and value != defaults[key]
        )
        crop = recipe.augmentation
        low, high = crop.scales
        crops = f"crops of {crop.crop[1]}×{crop.crop[0]} at scales {low:g} to {high:g}"
        rows.append(f"| `{name}` | {crops}; {changed} |")
    return "\n".join(rows)


def links(text: str, site: Path, folder: Path) -> str:
    """Links of a page in `folder` to what is not part of the site: downloads, a folder's name."""

    def link(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        if target.is_relative_to(site):
            return found[0]
        return f"[{found[1]}](<path:{found[2]}>)" if target.is_file() else found[1]

    return re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+)\)", link, text)


def _fields(recipe: type, prefix: str = "") -> str:
    rows = ["| field | default | meaning |", "|---|---|---|"]
    meanings = attributes(recipe)
    for field in fields(recipe):
        default = "the recipe's" if field.default is MISSING else f"`{field.default!r}`"
        rows.append(f"| `{prefix}{field.name}` | {default} | {meanings[field.name]} |")
    return "\n".join(rows)


def attributes(described: type) -> dict[str, str]:
    """The `Attributes:` section of a docstring: text by name."""
    section = cleandoc(described.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    texts = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {
        name: re.sub(r":\w+:`([^`]+)`|``([^`]+)``", r"`\1\2`", " ".join(text.split()))
        for name, text in texts
    }


PARTS: Mapping[str, Callable[[], str]] = {
    "command line": command_line,
    "recipe fields": recipe_fields,
    "augmentation fields": augmentation_fields,
    "recipes": recipes,
}
"""By the name in a page's mark, `<!-- generated: NAME -->`."""
