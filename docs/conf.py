"""The site: these pages, and the reference from docstrings. `sphinx-build -W docs build/docs`."""

import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
import generated

project = "edgeseg"
release = metadata.version("edgeseg")
html_theme = "furo"
html_title = f"edgeseg {release}"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings in Google's style
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 3
default_role = "py:obj"  # `name` in a docstring is a link where there is such a thing
autoclass_content = "both"  # the constructor's arguments, too
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_attr_annotations = False  # the signature has them
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True


def _prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill in what is made from the source; files that are no pages become downloads."""
    for name, make in generated.PARTS.items():
        if (mark := f"<!-- generated: {name} -->") in source[0]:
            source[0] = source[0].replace(mark, make())
    source[0] = generated.links(source[0], Path(app.srcdir), Path(app.srcdir, page).parent)


def _mark_examples(
    app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]
) -> None:
    """An indented block below a paragraph is an example, which reStructuredText wants told."""
    for index in range(len(lines) - 1, 1, -1):
        above, blank, line = lines[index - 2 : index + 1]
        if line.startswith("    ") and not blank and above and not above.startswith((" ", "-")):
            lines[index:index] = ["::", ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _prepare)
    app.connect("autodoc-process-docstring", _mark_examples, priority=400)  # before napoleon
