"""What is in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Base", "Customer", "Invoice", "Refusal", "create_tables"]


class Base(DeclarativeBase):
    """All tables of the example."""


class Customer(Base):
    """Who orders, and for how much she may still order, in cents."""

    __tablename__ = "customers"
    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    credit: Mapped[int]


class Invoice(Base):
    """What was billed; an order is billed once."""

    __tablename__ = "invoices"
    order: Mapped[str] = mapped_column(String(50), primary_key=True)
    customer: Mapped[str] = mapped_column(ForeignKey("customers.name"))
    cents: Mapped[int]


class Refusal(Base):
    """What was not billed, and why: kept although the booking is rolled back."""

    __tablename__ = "refusals"
    id: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[str] = mapped_column(String(50))
    reason: Mapped[str] = mapped_column(String(200))


async def create_tables(engine: AsyncEngine) -> None:
    """Create the tables that are not there yet."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
