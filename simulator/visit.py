"""A user's way through the site, click by click."""

from __future__ import annotations

import math
from collections.abc import Callable

from schemas.events import ClickstreamEvent, EventType, OrderItem
from simulator.catalogue import DEVICES, PRODUCTS, QUERIES, REFERRERS, Product
from simulator.config import CLICKS, Event
from simulator.timeline import Timeline
from simulator.users import User

__all__ = ["Checkout", "Visit", "random_click"]

Checkout = Callable[[User, list[OrderItem], str, int], None]
"""Who has paid, for what, in which session, and when the order comes."""


def random_click(timeline: Timeline, when: int, user_id: str, region: str) -> ClickstreamEvent:
    """A valid product view outside any visit."""
    product = PRODUCTS.choose(timeline.random)
    return ClickstreamEvent(
        event_id=timeline.identifier("c"),
        user_id=user_id,
        session_id=timeline.identifier("s"),
        event_type="PRODUCT_VIEW",
        product_id=product.product_id,
        category=product.category,
        price_minor=product.price_minor,
        event_time=when,
        device_type=DEVICES.choose(timeline.random),
        geo_region=region,
        page_url=f"/p/{product.product_id}",
    )


class Visit:
    """One user's way through the site. Calling it makes the next click and plans the one after."""

    __slots__ = ("_cart", "_checkout", "_clicks", "_paid", "_product", "_session_id", "_timeline", "_user", "next")

    def __init__(self, timeline: Timeline, user: User, checkout: Checkout):
        self._timeline = timeline
        self._user = user
        self._checkout = checkout
        self._session_id = timeline.identifier("s")
        self._product: Product | None = None
        self._cart: list[tuple[Product, int]] = []
        self._paid = False
        self._clicks = 0
        u = timeline.random.random()
        self.next: EventType = "PAGE_VIEW" if u < 0.55 else "PRODUCT_VIEW" if u < 0.85 else "SEARCH"

    def __call__(self, when: int) -> Event:
        if self.next == "PURCHASE" and not self._paid:
            self._pay(when)
        click = self.click(when)
        after = self.plan(when)
        if after is not None:
            self._timeline.at(after, self)
        return Event(CLICKS, self._user.user_id, when, click)

    def click(self, when: int) -> ClickstreamEvent:
        """The click that is next."""
        timeline, user = self._timeline, self._user
        rng = timeline.random
        kind = self.next
        quantity = None
        product: Product | None
        if kind == "PRODUCT_VIEW":
            self._product = product = PRODUCTS.choose(rng)
            url = "/p/" + product.product_id
        elif kind == "PAGE_VIEW":
            product = None if rng.random() < 0.4 else PRODUCTS.choose(rng)
            url = "/c/" + product.page if product else "/"
        elif kind == "SEARCH":
            product = None
            url = "/search?q=" + QUERIES.choose(rng)
        elif kind == "ADD_TO_CART":
            product = self._product
            quantity = 1 + int(rng.random() ** 4 * 4)
            self._cart.append((product, quantity))  # type: ignore[arg-type]
            url = "/cart"
        elif kind == "REMOVE_FROM_CART":
            product, quantity = self._cart.pop()
            url = "/cart"
        elif kind == "PURCHASE":
            product, quantity = self._cart.pop(0)
            url = "/thanks"
        else:
            product = None
            url = "/checkout"
        is_page = kind == "PAGE_VIEW" or product is None
        click = ClickstreamEvent(
            event_id=timeline.identifier("c"),
            user_id=user.user_id,
            session_id=self._session_id,
            event_type=kind,
            product_id=None if is_page else product.product_id,  # type: ignore[union-attr]
            category=product.category if product else None,
            price_minor=None if is_page else product.price_minor,  # type: ignore[union-attr]
            quantity=quantity,
            event_time=when,
            device_type=user.device,
            geo_region=user.region,
            page_url=url,
            referrer=REFERRERS.choose(rng) if self._clicks == 0 else None,
        )
        self._clicks += 1
        return click

    def plan(self, when: int) -> int | None:
        """Chooses the click after the one just made, and when it comes; None: the user leaves."""
        after = self._choose(self.next, when)
        if after is None:
            self._user.is_here = False
        return after

    def _choose(self, kind: EventType, when: int) -> int | None:
        rng = self._timeline.random
        u = rng.random()
        # Seconds until the next click; mostly 5 to 40, now and then the user does something else for some minutes.
        pause = 3_000 - math.log(1.0 - rng.random()) * (15_000 if rng.random() < 0.97 else 300_000)
        if kind == "CHECKOUT_START":
            if u > 0.75 or not self._user.may_order(when):
                return None
            self.next = "PURCHASE"
            self._paid = False
        elif kind == "PURCHASE":
            if self._cart:
                return when
            if u < 0.8:
                return None
            self.next = "PAGE_VIEW"
        elif kind == "PRODUCT_VIEW" and u < 0.24 and len(self._cart) < 8:
            self.next = "ADD_TO_CART"
        elif self._cart and u < 0.45:
            self.next = "REMOVE_FROM_CART" if u < 0.27 else "CHECKOUT_START"
        elif u > 0.87:
            return None
        else:
            self.next = "PRODUCT_VIEW" if u < 0.55 else "PAGE_VIEW" if u < 0.75 else "SEARCH"
        return when + int(pause)

    def _pay(self, when: int) -> None:
        """One PURCHASE click per line of the cart comes now; right after them the order."""
        if not self._user.may_order(when):  # has paid in another window meanwhile
            self._cart.clear()
            self.next = "PAGE_VIEW"
            return
        self._paid = True
        created = when + 80 + int(self._timeline.random.random() * 300)
        self._user.last_order_ms = created
        self._checkout(self._user, [product.line(n) for product, n in self._cart], self._session_id, created)
