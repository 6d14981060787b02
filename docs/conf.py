"""How Sphinx builds these pages: `python -m sphinx -W -n docs docs/_build/html`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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
# Docstrings are read in editors, where a single backtick is code.
default_role = "code"

# Signatures show the names that a reader imports, and types stand there once.
add_module_names = False
autoclass_content = "class"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases: dict[str, str] = {}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "tta-dev-primitives"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["style"]
html_css_files = ["pages.css"]
# The style that the theme would take underlines the names of modules, as if they were
# links.
pygments_dark_style = "a11y-dark"

# Names outside this project are links only where their index can be fetched.
if os.environ.get("TTA_DOCS_ONLINE") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "pytest": ("https://docs.pytest.org/en/stable", None),
        "hypothesis": ("https://hypothesis.readthedocs.io/en/latest", None),
    }

_FOREIGN = [
    *sorted(sys.stdlib_module_names),
    *(
        "_pytest",
        "annotated_types",
        "celery",
        "cryptography",
        "fastapi",
        "flask",
        "hypothesis",
    ),
    *("opentelemetry", "prometheus_client", "pydantic", "pydantic_settings"),
    *("pytest", "redis", "rq", "sqlalchemy", "starlette", "taskiq", "taskiq_redis"),
]
# Names that are imported for type checkers alone, so that Sphinx sees no more than the
# name; and short names of types that stand in a signature and need no page.
_BARE = (
    "ASGIApp|ConditionOptions|WSGIApp|"
    "APIRouter|AckableMessage|Algorithm|AnyOrder|AnyPrimitive|AnyStep|Api|App|Asked|"
    "Asking|AsyncBroker|AsyncSession|BackoffStrategy|Began|Broken|CallT_co|Chooser|"
    "Cleaner|ClientKey|ClockMark|CollectorRegistry|Condition|Connect|Context|Cost|"
    "Delay|Description|Ending|EngineSettings|Entry|ErrorFilter|ErrorSource|"
    "ExplorationError|FallbackOptions|Fate|FaultKind|FindingKind|FinishReason|"
    "Forward|Future|Gate|HarnessMark|Holder|Item|Jitter|Job|Key|KeySource|Kind|"
    "LLMInput|LLMOptions|Lifespan|Limit|LogFormat|LoopCore|Mode|Need|Nested|No|Node|"
    "OnIncomplete|Open|OpenAIApi|Operand|Outcome|Part|Path|Permit|Place|Plan|Policy|"
    "Predicate|PrimitiveCall|Queue|RecordMode|RecorderMark|Recording|Redis|Reply|"
    "Result|RetryOptions|Row|Schema|Scope|SearchStrategy|Served|Session|SessionMaker|"
    "Shape|SimulationLoop|Spoken|Starlette|Status|TapeExchange|Theme|Timeline|Tree|Ts|"
    "UnboundStep|Via|WSGIEnvironment|Wire|WireAnswer|WireFault|WireRequest|"
    "WireStrike|Workflow|Written|timedelta"
)
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(_FOREIGN)})(\..*)?"),
    ("py:.*", rf"(\w+\.)*({_BARE})"),
    # Parts of a base class that is written as text.
    ("py:.*", r"list\[Result\]|(Async)?Iterable\[Item\].*|(dict|tuple)\[str"),
    ("py:.*", r"(Sequence\[)?WorkflowPrimitive\[Any"),
    # The alias LLMInput, spelled out.
    ("py:.*", r"str \| LLMRequest \| .*"),
    ("py:.*", r"(\w+\.)*(In|Out|[A-Z]\d?|[A-Z]\w*T)"),  # Type variables.
    ("py:.*", r"(\w+\.)*_\w+"),  # What is private has no page.
]


# Every primitive has these; they are described once.
_OF_ALL_PRIMITIVES = {"children", "execute", "options", "stream"}
_DESCRIBED_AT = ("Interceptor.", "WorkflowPrimitive.")


def setup(app: Sphinx) -> None:
    """Correct what autodoc and napoleon show otherwise than a reader wants it."""
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("autodoc-process-docstring", _correct, priority=100)
    analyze = ModuleAnalyzer.analyze

    def without_overloads(analyzer: ModuleAnalyzer) -> None:
        """Show the signature that has the defaults, not those for type checkers."""
        analyze(analyzer)
        analyzer.overloads = {}

    ModuleAnalyzer.analyze = without_overloads


def _skip_member(*event: object) -> bool | None:
    """Leave out what is described elsewhere."""
    name, member = event[2], event[3]
    if name in _OF_ALL_PRIMITIVES:
        home = getattr(member, "__qualname__", "")
        return None if home.startswith(_DESCRIBED_AT) else True
    # The fields of named tuples are described by their class.
    doc = getattr(member, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


def _correct(*event: object) -> None:
    kind, lines = event[1], event[5]
    if not isinstance(lines, list):
        return
    # For pytest, not for readers.
    lines[:] = [line for line in lines if not line.startswith("PYTEST_DONT_REWRITE")]
    if kind == "module":
        lines[:] = _literal(lines)
    if kind in {"attribute", "property"}:
        # Or napoleon reads "Who answered: ..." as a type with a description. This is an
        # empty comment; empty lines alone are skipped.
        lines[:0] = ["..", ""]


def _literal(lines: list[str]) -> list[str]:
    """Mark what is indented in a module's docstring, such as a tree, as literal."""
    marked: list[str] = []
    is_literal = False
    for line in lines:
        if line.startswith("    ") and not is_literal:
            marked += ["::", ""]
        is_literal = line.startswith("    ") or (is_literal and not line)
        marked.append(line)
    return marked
