"""How the pages are built: `sphinx-build -W -b html docs docs/_build`. Warnings are errors
there, and in the tests. Notebooks are executed, unless `-D nb_execution_mode=off` is added."""

import filecmp
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

import cryolike_dask

sys.path.insert(0, str(Path(__file__).parent))
from api_reference import api_reference, readable_docstring
from command_reference import command_reference

project = "cryolike_dask"
author = "the cryolike_dask developers"
release = version = cryolike_dask.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cryolike_dask {version}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_sourcelink = html_show_copyright = False
toc_object_entries_show_parents = "hide"
smartquotes_action = "D"  # dashes alone

nitpicky = True
myst_heading_anchors = 3

nb_execution_mode = "cache"  # executed again where they have changed
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

copybutton_exclude = ".linenos, .gp, .go"

autodoc_typehints = "none"  # the docstrings say it, with shapes and units
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}  # pydantic's own
napoleon_google_docstring = False
napoleon_use_param = napoleon_use_rtype = False  # types are prose: "path or ImageParameters"
napoleon_custom_sections = [("Attributes", "params_style")]

GENERATED = {"api": api_reference, "command-line": command_reference}
"""Pages whose rest is made from the package when they are read."""


def copy_notebooks(app: Sphinx) -> None:
    """Sphinx reads what lies below docs alone: copies there, left alone where nothing changed."""
    for notebook in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb"):
        copy = Path(app.srcdir) / "notebooks" / notebook.name
        copy.parent.mkdir(exist_ok=True)
        if not copy.exists() or not filecmp.cmp(notebook, copy, shallow=False):
            shutil.copyfile(notebook, copy)


def add_generated(app: Sphinx, name: str, source: list[str]) -> None:
    """Append what is generated to the page that introduces it."""
    if name in GENERATED:
        source[0] += "\n" + GENERATED[name]()


def setup(app: Sphinx) -> None:
    """Connect the notebooks, and the generated pages, which are read anew by every build."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", add_generated)
    app.connect("env-get-outdated", lambda *_: list(GENERATED))
    app.connect("autodoc-process-docstring", readable_docstring, priority=400)  # before napoleon's
