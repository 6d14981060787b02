"""One page about a session: a file of its own, that asks nothing of a network.

The page is a template, a style and scripts that lie beside this file, and the record of
the session as JSON. The same is in it as plain tables, for those who run no scripts.
"""

from pytest_tta.report.html.writing import page

__all__ = ["page"]
