"""The shop's products, regions, devices and payment methods. The same for every seed."""

from __future__ import annotations

import bisect
import random
from itertools import accumulate
from typing import Final, Generic, NamedTuple, TypeVar

from schemas.events import OrderItem

__all__ = [
    "CATALOGUE",
    "DEVICES",
    "PAYMENT_METHODS",
    "PRODUCTS",
    "QUERIES",
    "REFERRERS",
    "REGIONS",
    "Product",
    "Weighted",
    "priced",
]

T = TypeVar("T")

_VARIANTS: Final = ("Kırmızı", "Lacivert", "Yeşil", "Gümüş")
# category: (page, cheapest and dearest price in TRY, nouns)
_CATEGORIES: Final[dict[str, tuple[str, int, int, tuple[str, ...]]]] = {
    "Kadın Giyim": (
        "kadin-giyim",
        150,
        1800,
        ("Kazak", "Elbise", "Gömlek", "Etek", "Ceket", "Şal", "Pijama", "Tişört"),
    ),
    "Erkek Giyim": (
        "erkek-giyim",
        150,
        2200,
        ("Kazak", "Gömlek", "Pantolon", "Mont", "Kravat", "Kemer", "Çorap", "Şort"),
    ),
    "Ayakkabı": ("ayakkabi", 350, 3200, ("Bot", "Sandalet", "Terlik", "Çizme", "Spor Ayakkabı", "Babet", "Loafer")),
    "Elektronik": (
        "elektronik",
        400,
        42000,
        ("Kulaklık", "Şarj Aleti", "Akıllı Saat", "Hoparlör", "Tablet", "Telefon", "Dizüstü Bilgisayar", "Televizyon"),
    ),
    "Ev & Yaşam": ("ev-yasam", 60, 2500, ("Nevresim", "Havlu", "Çaydanlık", "Kilim", "Masa Lambası", "Ayna", "Yastık")),
    "Kozmetik": ("kozmetik", 40, 900, ("Parfüm", "Ruj", "Şampuan", "Güneş Kremi", "Sabun", "Tıraş Köpüğü")),
    "Kitap": ("kitap", 45, 480, ("Roman", "Şiir Kitabı", "Öykü", "Sözlük", "Yemek Kitabı", "Çizgi Roman", "Atlas")),
    "Oyuncak": ("oyuncak", 70, 1400, ("Yapboz", "Bebek", "Araba", "Uçurtma", "Peluş Ayı", "Satranç Takımı")),
    "Spor & Outdoor": ("spor-outdoor", 120, 6500, ("Çadır", "Mat", "Dambıl", "Bisiklet", "Uyku Tulumu", "Matara")),
    "Süpermarket": (
        "supermarket",
        25,
        600,
        ("Zeytinyağı", "Türk Kahvesi", "Çay", "Lokum", "Bal", "Pekmez", "Kuru Üzüm"),
    ),
}
_LARGE_PROVINCES: Final = {34: 185, 6: 68, 35: 52, 16: 37, 7: 32, 42: 27, 1: 26, 63: 26, 27: 25, 41: 24, 33: 22, 21: 21}


class Product(NamedTuple):
    product_id: str
    name: str
    category: str
    page: str
    price_minor: int
    lines: tuple[OrderItem, ...]  # as bought once, twice, …

    def line(self, quantity: int) -> OrderItem:
        return self.lines[quantity - 1]


class Weighted(Generic[T]):
    """Choices by weight, in constant time."""

    _SLOTS = 4096

    def __init__(self, weights: dict[T, float]):
        values = list(weights)
        sums = list(accumulate(weights.values()))
        self._slots = [values[bisect.bisect(sums, (i + 0.5) / self._SLOTS * sums[-1])] for i in range(self._SLOTS)]

    def choose(self, rng: random.Random) -> T:
        return self._slots[int(rng.random() * self._SLOTS)]


def _products() -> list[Product]:
    rng = random.Random("catalogue")
    products: list[Product] = []
    for category, (page, low, high, nouns) in _CATEGORIES.items():
        for i, noun in enumerate(nouns):
            # Electronics are priced noun by noun, so that a phone never costs less than a cable.
            typical = low * (high / low) ** ((i + 0.5) / len(nouns)) if category == "Elektronik" else 0
            for variant in _VARIANTS:
                lira = typical * rng.uniform(0.8, 1.25) if typical else low * (high / low) ** rng.random()
                price = int(lira) * 100 + rng.choice((90, 99, 95, 0))
                number = len(products) + 1
                product_id = f"P{number:04d}"
                name = f"{variant} {noun}"
                lines = tuple(OrderItem(product_id, name, category, n, price, n * price) for n in range(1, 6))
                products.append(Product(product_id, name, category, page, price, lines))
    return products


CATALOGUE: Final = tuple(_products())
_BY_PRICE: Final = sorted(CATALOGUE, key=lambda product: (product.price_minor, product.product_id))


def priced(at_least_minor: int) -> Product:
    """The cheapest product of at least that price."""
    return _BY_PRICE[bisect.bisect_left(_BY_PRICE, at_least_minor, key=lambda product: product.price_minor)]


# Cheap things sell more often: most baskets stay below 5000 TRY.
PRODUCTS: Final = Weighted({product: 1 / product.price_minor**0.6 for product in CATALOGUE})
REGIONS: Final = Weighted({f"TR-{n:02d}": float(_LARGE_PROVINCES.get(n, 8)) for n in range(1, 82)})
DEVICES: Final = Weighted({"mobile": 66.0, "desktop": 27.0, "tablet": 7.0})
PAYMENT_METHODS: Final = Weighted(
    {"credit_card": 58.0, "debit_card": 20.0, "wallet": 10.0, "bank_transfer": 7.0, "cash_on_delivery": 5.0}
)
REFERRERS: Final[Weighted[str | None]] = Weighted(
    {None: 45.0, "https://www.google.com/": 30.0, "https://www.instagram.com/": 15.0, "newsletter": 10.0}
)
QUERIES: Final = Weighted(
    {noun.lower(): 1.0 for _, _, _, nouns in _CATEGORIES.values() for noun in nouns} | {"çok satanlar": 20.0}
)
