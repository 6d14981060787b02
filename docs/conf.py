"""How Sphinx builds these pages: `python -m sphinx -W -n docs docs/_build/html`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of

project = "tta-dev-primitives"
author = "The tta-dev-primitives authors"
copyright = f"2026, {author}"
version = release = version_of("tta-dev-primitives")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
nitpicky = True

# Signatures show the names that a reader imports, and types stand there once.
add_module_names = False
autoclass_content = "class"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases: dict[str, str] = {}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "tta-dev-primitives"
html_theme_options = {"navigation_with_keys": True}

# Names outside this project are links only where their index can be fetched.
if os.environ.get("TTA_DOCS_ONLINE") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "pytest": ("https://docs.pytest.org/en/stable", None),
        "hypothesis": ("https://hypothesis.readthedocs.io/en/latest", None),
    }

_FOREIGN = [*sorted(sys.stdlib_module_names), "_pytest", "hypothesis", "pytest"]
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(_FOREIGN)})(\..*)?"),
    ("py:.*", r"(\w+\.)*(In|Out|[A-Z]\d?|[A-Z]\w*T)"),  # Type variables.
    ("py:.*", r"(\w+\.)*_\w+"),  # What is private has no page.
]
