"""A mapping proposed from a sample: our fields by the names that theirs usually have. It is a draft, and says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from schemas.framing import other_json

__all__ = ["suggest"]

_MAX_PATHS = 2_000
_MAX_DEPTH = 8
# In this order: the best name first. Names are compared without case, _ and -.
_NAMES: Final = {
    "order_id": "orderid ordernumber transactionid id number reference",
    "user_id": "userid customerid customer.id user.id buyerid accountid memberid anonymousid email",
    "session_id": "sessionid sid checkouttoken",
    "currency": "currency currencycode",
    "discount": "discount discounttotal totaldiscount totaldiscounts discountamount",
    "shipping": "shipping shippingtotal shippingcost shippingamount deliveryfee",
    "total": "totalamount grandtotal totalprice ordertotal total amount revenue value price",
    "payment_method": "paymentmethod paymenttype payment.method payment",
    "shipping_region": "shippingregion region shippingaddress.state shippingaddress.province shippingaddress.city city "
    "country",
    "event_time": "eventtime createdat created timestamp orderdate placedat paidat date time ts updatedat at",
    "items": "items lineitems lines products orderlines orderitems",
    "status": "orderstatus status state eventtype event type",
}
_ITEM_NAMES: Final = {
    "product_id": "productid sku itemid id code",
    "product_name": "productname name title itemname",
    "category": "category productcategory itemcategory",
    "quantity": "quantity qty count",
    "unit_price": "unitprice price amount",
}
_WORDS: Final = {
    "CREATED": "created|new|placed|pending|open|completed order|order completed|purchase",
    "CONFIRMED": "confirmed|paid|processing",
    "SHIPPED": "shipped|fulfilled|sent",
    "DELIVERED": "delivered|completed|complete",
    "CANCELLED": "cancell?ed|failed|voided",
    "REFUNDED": "refunded|returned|refund",
}


def suggest(messages: Iterable[Any]) -> str:
    """YAML of a mapping to orders; or the name of a shipped one in a comment, if it is one of theirs."""
    sample = [message for message in messages if isinstance(message, dict)][:200]
    known = next((found for message in sample if (found := other_json(message))), "")
    paths: dict[str, list[Any]] = {}
    for message in sample:
        for path, value in _leaves(message, "", 0):
            if len(paths) < _MAX_PATHS or path in paths:
                paths.setdefault(path, []).append(value)
    best = {field: _best(names, paths) for field, names in _NAMES.items()}
    fields: dict[str, Any] = {}
    doubtful = []
    for field in ("order_id", "user_id", "session_id", "payment_method", "shipping_region"):
        if best[field]:
            fields[field] = best[field]
    fields["order_status"] = _status(best["status"], paths)
    fields["currency"] = {"upper": best["currency"]} if best["currency"] else {"const": "TRY"}
    for field, name in (
        ("discount", "discount_minor"),
        ("shipping", "shipping_minor"),
        ("total", "total_amount_minor"),
    ):
        if path := best[field]:
            unit = "minor" if re.search("minor|cents|kurus", path, re.IGNORECASE) else "money"
            fields[name] = {unit: path}
    if best["event_time"]:
        zoned = all(not isinstance(v, str) or re.search(r"(Z|[+-]\d\d:?\d\d)$", v) for v in paths[best["event_time"]])
        fields["event_time"] = {"time": best["event_time"]} | ({} if zoned else {"zone": "UTC"})
        doubtful += [] if zoned else ["event_time: its texts have no zone; is it UTC?"]
    items = _items(best["items"], sample)
    if items:
        fields["items"] = items
    doubtful += [f"{name}: nothing looks like it; it is required" for name in _REQUIRED if name not in fields]
    doubtful += [] if best["currency"] else ["currency: nothing looks like it; TRY is a guess"]
    head = "".join(
        f"# {line}\n" for line in ["A draft; check it with: mapping try", *([known] if known else []), *doubtful]
    )
    return head + yaml.safe_dump({"version": 1, "orders": {"fields": fields}}, sort_keys=False, allow_unicode=True)


_REQUIRED: Final = ("order_id", "user_id", "total_amount_minor", "event_time")


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        for name, inner in value.items():
            if isinstance(name, str) and re.fullmatch(r"[^.\[\]$*]+", name):
                yield from _leaves(inner, f"{path}.{name}" if path else name, depth + 1)
    elif path:
        yield path, value


def _plain(path: str) -> str:
    return re.sub(r"[_\-\s]", "", path).lower()


def _best(names: str, paths: dict[str, list[Any]]) -> str:
    """The path that has the best of the names, or ends in it; the shortest of several."""
    for name in names.split():
        found = [path for path in paths if _plain(path) == name or _plain(path).endswith(f".{name}")]
        found = [path for path in found if any(value not in (None, "") for value in paths[path])]
        if found:
            return min(found, key=lambda path: (path.count("."), len(path)))
    return ""


def _status(path: str, paths: dict[str, list[Any]]) -> Any:
    seen = sorted({value for value in paths.get(path, ()) if isinstance(value, str)})[:20]
    words = {}
    for text in seen:
        for status, pattern in _WORDS.items():
            if re.fullmatch(pattern, text.replace("_", " "), re.IGNORECASE):
                words[text] = status
                break
    return {"enum": path, "values": words} if words else {"const": "CREATED"}


def _items(path: str, sample: list[Any]) -> dict[str, Any] | None:
    if not path:
        return None
    inside: dict[str, list[Any]] = {}
    for message in sample:
        for step in path.split("."):
            message = message.get(step) if isinstance(message, dict) else None
        for item in message if isinstance(message, list) else ():
            for leaf, value in _leaves(item, "", 0):
                inside.setdefault(leaf, []).append(value)
    found = {field: _best(names, inside) for field, names in _ITEM_NAMES.items()}
    fields: dict[str, Any] = {field: leaf for field, leaf in found.items() if leaf and field != "unit_price"}
    if found["unit_price"]:
        fields["unit_price_minor"] = {"money": found["unit_price"]}
    return {"each": path, "fields": fields} if fields else None
