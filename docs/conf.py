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
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True


def _prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill in what is made from the source; files that are no pages become downloads."""
    for name, make in generated.PARTS.items():
        if (mark := f"<!-- generated: {name} -->") in source[0]:
            source[0] = source[0].replace(mark, make())
    source[0] = generated.links(source[0], Path(app.srcdir), Path(app.srcdir, page).parent)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _prepare)
