"""A fault at each request of the SDK, and other orders: the plugin tries them.

Plain code has no workflow whose outcomes `--tta-cov` could count. A search looks at
what the customer is told, and when; `examples/answer_service` has more of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest

from examples.support_desk.desk import answer

if TYPE_CHECKING:
    from pytest_tta import Harness


@pytest.mark.tta_sweep
@pytest.mark.tta_schedules(20)
def test_customer_is_told_the_truth_or_nothing(tta: Harness) -> None:
    """Two requests for an answer, three attempts at each, 20 seconds for an attempt."""
    tta.always(lambda: tta.elapsed < 130, "after two minutes the customer knows")
    tta.wire.openai.when(contains="on its way").reply("On Friday.").always().optional()
    tta.wire.openai.calls_tool("order_status", order="7").always().optional()

    try:
        said = tta.run(answer, "Where is order 7?")
    except openai.APIError:
        tta.sometimes("the customer is told that nobody could be asked")
        return

    assert said == "On Friday."
