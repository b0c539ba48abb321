"""The routes of what follows the shop's database: products as they are, and alerts on stock that ran low."""

from __future__ import annotations

from typing import Annotated, Any, cast

from flask import Blueprint, Response, current_app
from msgspec import Meta, Struct

from schemas.ids import ID_PATTERN
from serving import answers, query
from serving.openapi import operation
from serving.query import LISTING, Parameter
from serving.resources import One, Page, Time
from serving.store import Store

__all__ = ["ProductAnswer", "ProductPage", "StockAlertPage", "api"]

api = Blueprint("inventory", __name__, url_prefix="/api/v1")


class Product(Struct):
    """A product as the shop's database has it."""

    product_id: str
    name: str
    category: str
    price: Annotated[float, Meta(description="in the product's currency")]
    currency: str
    stock: Annotated[int, Meta(description="pieces there are; negative when more were sold")]
    low_stock_threshold: int
    low_stock: Annotated[bool, Meta(description="the stock is at the threshold or below")]
    updated_at: Time


class StockAlert(Struct):
    """A product's stock fell to its threshold or below."""

    alert_id: Annotated[str, Meta(description="the same alert always has the same id")]
    product_id: str
    product_name: Annotated[str, Meta(description="as it was then")]
    category: Annotated[str, Meta(description="as it was then")]
    stock: Annotated[int, Meta(description="as it was then")]
    low_stock_threshold: Annotated[int, Meta(description="as it was then")]
    timestamp: Annotated[Time, Meta(description="when the change was committed")]
    product: Annotated[Product | None, Meta(description="as it is now; null when it is there no more")]


class ProductAnswer(One[Product]):
    """One product."""


class ProductPage(Page[Product]):
    """A page of products."""


class StockAlertPage(Page[StockAlert]):
    """A page of low-stock alerts."""


_SCHEMA = {"type": "string", "pattern": ID_PATTERN, "examples": ["P0001"]}

PRODUCT_ID = Parameter(
    "product_id",
    query.an_id("product"),
    _SCHEMA,
    "The product, percent-encoded. Clients that take `.` or `..` out of paths ask by query.",
)
OF_PRODUCT = Parameter("product_id", query.an_id("product"), _SCHEMA, "This product only.")
LOW_STOCK = Parameter(
    "low_stock",
    query.flag("low_stock"),
    {"type": "boolean", "default": False},
    "`true` for those whose stock is at their threshold or below.",
    default=False,
)


def _store() -> Store:
    return cast(Store, current_app.extensions["streamforge.store"])


@api.get("/inventory")
@operation(ProductPage, query=[*LISTING, LOW_STOCK, OF_PRODUCT])
def inventory(low_stock: bool, product_id: str | None, **asked: Any) -> Response:
    """Products with price and stock, by their id.

    `since` and `until` are about `updated_at`. A page can have fewer rows than `limit` and a next one all the same.
    """
    page = _store().products(*query.listing(**asked), low_stock=low_stock, product_id=product_id)
    return answers.listing(page)


@api.get("/inventory/<product_id>")
@operation(ProductAnswer, path=[PRODUCT_ID], missing="There is no such product.")
def inventory_of_product(product_id: str) -> Response:
    """One product, with price and stock."""
    product = _store().product(product_id)
    return answers.missing("there is no such product") if product is None else answers.one_ready(product)


@api.get("/inventory-alerts")
@operation(StockAlertPage, query=LISTING)
def inventory_alerts(**asked: Any) -> Response:
    """The newest low-stock alerts, each with what its product is now.

    An alert says what was when the stock fell; name, price and stock of today are looked up when it is read.
    """
    return answers.listing(_store().stock_alerts(*query.listing(**asked)))
