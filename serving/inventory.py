"""Routes for data from the shop's database: current products, and low-stock alerts."""

from __future__ import annotations

from typing import Annotated, Any, cast

from flask import Blueprint, Response, current_app
from msgspec import Meta, Struct

from schemas.ids import ID_PATTERN
from serving import answers, query
from serving.config import Config
from serving.openapi import operation
from serving.query import LISTING, Parameter
from serving.resources import One, Page, Time
from serving.store import Store

__all__ = ["ProductAnswer", "ProductPage", "StockAlertPage", "api"]

api = Blueprint("inventory", __name__, url_prefix="/api/v1")


class Product(Struct):
    """A product in the shop's database."""

    product_id: str
    name: str
    category: str
    price: Annotated[float, Meta(description="in the product's currency")]
    currency: str
    stock: Annotated[int, Meta(description="units in stock; negative if oversold")]
    low_stock_threshold: int
    low_stock: Annotated[bool, Meta(description="whether stock is at or below the threshold")]
    updated_at: Time


class StockAlert(Struct):
    """A product's stock fell to its threshold or below."""

    alert_id: Annotated[str, Meta(description="the same alert always has the same id")]
    product_id: str
    product_name: Annotated[str, Meta(description="at the time of the alert")]
    category: Annotated[str, Meta(description="at the time of the alert")]
    stock: Annotated[int, Meta(description="at the time of the alert")]
    low_stock_threshold: Annotated[int, Meta(description="at the time of the alert")]
    timestamp: Annotated[Time, Meta(description="when the change was committed")]
    product: Annotated[Product | None, Meta(description="its current state; null if it was deleted")]


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
    "The product, percent-encoded. For ids `.` and `..`, which many clients remove from paths, use the query.",
)
OF_PRODUCT = Parameter("product_id", query.an_id("product"), _SCHEMA, "Only this product.")
LOW_STOCK = Parameter(
    "low_stock",
    query.flag("low_stock"),
    {"type": "boolean", "default": False},
    "`true`: only products with stock at or below their threshold.",
    default=False,
)


def _store() -> Store:
    return cast(Store, current_app.extensions["streamforge.store"])


def _zone() -> str:
    return cast(Config, current_app.extensions["streamforge.config"]).time_zone


@api.get("/inventory")
@operation(ProductPage, query=[*LISTING, LOW_STOCK, OF_PRODUCT])
def inventory(low_stock: bool, product_id: str | None, **asked: Any) -> Response:
    """Products with price and stock, ordered by id.

    `since` and `until` filter by `updated_at`. A page may have fewer rows than `limit` and still be followed by
    another.
    """
    page = _store().products(*query.listing(**asked, zone=_zone()), low_stock=low_stock, product_id=product_id)
    return answers.listing(page)


@api.get("/inventory/<product_id>")
@operation(ProductAnswer, path=[PRODUCT_ID], missing="The product does not exist.")
def inventory_of_product(product_id: str) -> Response:
    """One product, with price and stock."""
    product = _store().product(product_id)
    return answers.missing("there is no such product") if product is None else answers.one_ready(product)


@api.get("/inventory-alerts")
@operation(StockAlertPage, query=LISTING)
def inventory_alerts(**asked: Any) -> Response:
    """The newest low-stock alerts, each with its product's current state.

    An alert's own fields describe the moment when stock fell; `product` is looked up when the alert is read.
    """
    return answers.listing(_store().stock_alerts(*query.listing(**asked, zone=_zone())))
