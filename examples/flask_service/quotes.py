"""The workflow: ask both carriers at the same time, and take the cheaper one."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from tta_primitives import step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

__all__ = ["Offer", "Parcel", "quote"]


class Parcel(TypedDict):
    """What is to be sent, and where to."""

    country: str
    grams: int


class Offer(TypedDict):
    """What a carrier asks for it."""

    carrier: str
    cents: int


@step
async def courier(parcel: Parcel) -> Offer:
    """Stand for the API of a courier: it is quick, and it has a price for all."""
    await asyncio.sleep(0.1)
    return {"carrier": "courier", "cents": 900 + parcel["grams"] // 2}


@step
async def post(parcel: Parcel) -> Offer:
    """Stand for the API of the post office: it takes a second."""
    await asyncio.sleep(1)
    return {"carrier": "post", "cents": 400 + parcel["grams"]}


@step
def price_list(parcel: Parcel) -> Offer:
    """Look up what the post office asks at most, for when it does not answer."""
    return {"carrier": "post", "cents": 600 + 2 * parcel["grams"]}


@step
def cheapest(offers: tuple[Offer, Offer]) -> Offer:
    """Choose."""
    return min(offers, key=lambda offer: offer["cents"])


# The post office has two seconds per attempt; what it last said is good for an hour.
_post = FallbackPrimitive(
    RetryPrimitive(TimeoutPrimitive(post, timeout_seconds=2), max_retries=1),
    [price_list],
)
quote = CachePrimitive((courier | _post) >> cheapest, ttl=3600).named("quote")
