"""The reference has every public name; its generated parts are whole."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from types import ModuleType

import pytest
from tests.docs.blocks import ROOT

import edgeseg
import edgeseg.archive
import edgeseg.data
import edgeseg.evaluate
import edgeseg.export
import edgeseg.models
import edgeseg.runtime
import edgeseg.serve
import edgeseg.synthetic
import edgeseg.video
from edgeseg.cli import app
from edgeseg.data import Augmentation
from edgeseg.recipes import PRESETS, TrainConfig

REFERENCE = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs/reference").glob("*.rst"))
PUBLIC = (
    edgeseg,
    edgeseg.archive,
    edgeseg.data,
    edgeseg.evaluate,
    edgeseg.export,
    edgeseg.models,
    edgeseg.runtime,
    edgeseg.serve,
    edgeseg.synthetic,
    edgeseg.video,
)


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    def is_in(name: str) -> bool:
        home = getattr(getattr(module, name), "__module__", "")
        return (
            has_all_of(module.__name__)
            or has_all_of(home)
            or bool(re.search(rf"\b{name}\b", REFERENCE))
        )

    shown_in_signatures = {"Precision", "TargetName", "__version__"}
    assert {name for name in module.__all__ if not is_in(name)} <= shown_in_signatures


def has_all_of(module: str) -> bool:
    """Whether the reference shows whatever a module has."""
    return re.search(rf"automodule:: {module}\n   :members:\n", REFERENCE) is not None


@pytest.mark.parametrize("recipe", [TrainConfig, Augmentation])
def test_every_field_of_a_recipe_has_a_meaning(generated: ModuleType, recipe: type) -> None:
    assert list(generated.attributes(recipe)) == [field.name for field in fields(recipe)]


def test_tables_of_recipes(generated: ModuleType) -> None:
    table = generated.recipe_fields()
    assert "| `momentum` | `0.9` | Of SGD. |" in table
    assert "| `dataset` | the recipe's | Name of a known set" in table
    assert all(f"| `{name}` | crops of " in generated.recipes() for name in PRESETS)
    assert "`lr=0.05`" in generated.recipes()


def test_every_command_is_in_the_reference(generated: ModuleType) -> None:
    page = generated.command_line()
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"## `edgeseg {name}`" in page
    assert "--set" in page


def test_what_is_no_page_becomes_a_download(generated: ModuleType) -> None:
    docs = ROOT / "docs"
    text = "[a](../README.md) [b](gpu.md) [c](../csrc) [d](../errors.md)"
    assert generated.links(text, docs, docs) == ("[a](<path:../README.md>) [b](gpu.md) c d")
    assert generated.links("[d](../errors.md)", docs, docs / "reference") == "[d](../errors.md)"
