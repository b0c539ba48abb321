"""A shop to begin with: the simulator's products, and customers whose names, addresses and numbers are invented."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import psycopg

from simulator.catalogue import CATALOGUE, REGIONS

__all__ = ["customer", "fill"]

CUSTOMERS = 500
_FIRST = ("Ayşe", "Mehmet", "Zeynep", "Mustafa", "Elif", "Ali", "Fatma", "Emre", "Merve", "Can", "Derya", "Onur")
_LAST = ("Yılmaz", "Kaya", "Demir", "Şahin", "Çelik", "Öztürk", "Aydın", "Arslan", "Doğan", "Koç", "Kurt", "Aksoy")
_PLAIN = str.maketrans("ıİ", "iI")

Row = tuple[str, str, str, str, str]


def fill(connection: psycopg.Connection[Any]) -> None:
    """Inserts what is missing."""
    rng = random.Random("sample")
    products = [
        (each.product_id, each.name, each.category, each.price_minor, rng.randint(20, 400), rng.choice((5, 10, 10, 20)))
        for each in CATALOGUE
    ]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO products (product_id, name, category, price_minor, stock, low_stock_threshold)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            products,
        )
        cursor.executemany(
            "INSERT INTO customers (customer_id, full_name, email, phone, region)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [customer(number, rng) for number in range(1, CUSTOMERS + 1)],
        )


def customer(number: int, rng: random.Random) -> Row:
    """customer_id (the simulator's user of that number), full_name, email, phone, region."""
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    plain = unicodedata.normalize("NFKD", f"{first}.{last}".translate(_PLAIN)).encode("ascii", "ignore").decode()
    email = f"{plain.lower()}.{number}@example.com"
    phone = f"+90 555 {rng.randrange(1000):03d} {rng.randrange(10_000):04d}"
    return f"user-{number:06d}", f"{first} {last}", email, phone, REGIONS.choose(rng)
