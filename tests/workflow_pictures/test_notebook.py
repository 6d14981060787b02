"""What a notebook shows of a workflow."""

from __future__ import annotations

from tests.workflow_pictures.reading import nodes
from tta_primitives import WorkflowPrimitive, step


@step
async def llm(value):
    return value


class Broken(WorkflowPrimitive):
    """One whose description fails."""

    def __init__(self, error):
        self.error = error

    async def execute(self, input_data, context):
        return input_data

    def options(self):
        raise self.error


def test_a_notebook_shows_the_picture_and_the_text() -> None:
    """The text can be searched and copied."""
    html = (llm >> llm.named("<other>"))._repr_html_()
    picture, text = html.removeprefix("<div>").split("</svg>")
    assert nodes(picture + "</svg>") == [
        "sequential/llm (Step)",
        "sequential/<other> (Step)",
    ]
    assert text.strip() == (
        "<code>&lt;SequentialPrimitive &#x27;sequential&#x27; &lt;StepPrimitive "
        "&#x27;llm&#x27;&gt; &gt;&gt; &lt;StepPrimitive &#x27;&lt;other&gt;&#x27;&gt;"
        "&gt;</code></div>"
    )


def test_a_workflow_that_cannot_be_drawn_is_a_text() -> None:
    """A notebook falls back to `repr` where there is no picture."""
    assert Broken(RuntimeError("of the user's own"))._repr_html_() is None
    assert Broken(RecursionError())._repr_html_() is None


def test_a_very_long_text_is_cut() -> None:
    """The picture says the rest."""
    html = llm.named("x" * 100_000)._repr_html_()
    assert len(html) < 20_000
