"""Traffic for the shop's database: ordinary changes, and those that make capture hard.

Orders move stock in one transaction; some are rolled back. Prices, customers, keys and columns change, rows go away.

Long, as the shop that it plays is one state.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from cdc import sample
from cdc.database import LOCAL, Database, owner_password
from cdc.errors import CdcError, WrongInput
from schemas.flags import Parser
from schemas.logs import Logs, add_log_format

__all__ = ["Shop", "main"]

_LOG = logging.getLogger("cdc.workload")

_NEXT: Final = {
    "CREATED": ("CONFIRMED", "CONFIRMED", "CONFIRMED", "CANCELLED"),
    "CONFIRMED": ("SHIPPED", "SHIPPED", "SHIPPED", "CANCELLED"),
    "SHIPPED": ("DELIVERED",),
    "DELIVERED": ("REFUNDED",),
}
_GIVEN_BACK: Final = ("CANCELLED", "REFUNDED")


class RolledBack(Exception):
    """Ends a transaction that shall leave nothing."""


class Shop:
    """One client of the database. Each call of a method is one transaction; False when there was nothing to do it to.

    The same seed on the same tables does the same, but for times and the numbers of movements.
    """

    def __init__(self, connection: psycopg.Connection[Any], rng: random.Random) -> None:
        """Raises: CdcError, when there is nothing to sell or nobody to buy."""
        self._connection = connection
        self._rng = rng
        self._products = self._column("SELECT product_id FROM products ORDER BY product_id")
        self._customers = self._column("SELECT customer_id FROM customers ORDER BY customer_id")
        if len(self._products) < 20 or not self._customers:
            raise CdcError("there are too few products or customers: python -m cdc setup --sample_data")
        rows = connection.execute("SELECT order_id, status FROM orders ORDER BY order_id").fetchall()
        self._orders: dict[str, str] = dict(rows)
        self._open = [order for order, status in rows if status in _NEXT]
        self._all = list(self._orders)
        # Numbers go on after those of former runs.
        self._order_number = self._last("SELECT max(order_id) FROM orders WHERE order_id ~ '^W[0-9]+$'")
        self._product_number = self._last("SELECT max(product_id) FROM products WHERE product_id ~ '^N[0-9]+$'")
        self._customer_number = self._last("SELECT max(customer_id) FROM customers WHERE customer_id ~ '^user-[0-9]+$'")
        self._rated = False

    def order(self, *, rollback: bool = False) -> None:
        """An order of one to four lines, its movements, and the stock."""
        rng = self._rng
        self._order_number += 1
        order = f"W{self._order_number:08d}"
        chosen = sorted(rng.sample(self._products, rng.choice((1, 1, 2, 2, 3, 4))))  # in one order: no deadlocks
        try:
            with self._connection.transaction():
                self._do(
                    "INSERT INTO orders (order_id, customer_id, status, total_minor, currency)"
                    " VALUES (%s, %s, 'CREATED', 0, 'TRY')",
                    order,
                    rng.choice(self._customers),
                )
                total = 0
                for line, product in enumerate(chosen, 1):
                    quantity = rng.choice((1, 1, 1, 2, 3))
                    price = self._move(product, -quantity, "SALE", order)
                    total += quantity * price
                    self._do(
                        "INSERT INTO order_items VALUES (%s, %s, %s, %s, %s)", order, line, product, quantity, price
                    )
                self._do("UPDATE orders SET total_minor = %s WHERE order_id = %s", total, order)
                if rollback:
                    raise RolledBack
        except RolledBack:
            return
        self._orders[order] = "CREATED"
        self._open.append(order)
        self._all.append(order)

    def rolled_back(self) -> None:
        self.order(rollback=True)

    def next_status(self) -> bool:
        """An order goes on its way; cancelled or refunded, its goods come back."""
        if not self._open:
            return False
        index = self._rng.randrange(len(self._open))
        order = self._open[index]
        status = self._rng.choice(_NEXT[self._orders[order]])
        with self._connection.transaction():
            self._do("UPDATE orders SET status = %s, updated_at = now() WHERE order_id = %s", status, order)
            if status in _GIVEN_BACK:
                items = self._connection.execute(
                    # Not what is sold no more, or under another number.
                    "SELECT product_id, sum(quantity)::integer FROM order_items JOIN products USING (product_id)"
                    " WHERE order_id = %s GROUP BY product_id ORDER BY product_id",
                    [order],
                ).fetchall()
                for product, quantity in items:
                    self._move(product, quantity, "RETURN", order)
        self._orders[order] = status
        if status not in _NEXT:
            _take(self._open, index)
        return True

    def delete_order(self) -> bool:
        """With its lines, by the foreign key."""
        if not self._all:
            return False
        order = _take(self._all, self._rng.randrange(len(self._all)))
        if self._orders.pop(order) in _NEXT:
            self._open.remove(order)
        self._do("DELETE FROM orders WHERE order_id = %s", order)
        return True

    def restock(self) -> None:
        with self._connection.transaction():
            for product in sorted(self._rng.sample(self._products, 3)):
                self._move(product, self._rng.randint(5, 60), "RESTOCK", None)

    def count_stock(self) -> None:
        """Somebody counts what is on the shelf, and it is less."""
        with self._connection.transaction():
            self._move(self._rng.choice(self._products), -self._rng.randint(1, 40), "CORRECTION", None)

    def change_price(self) -> None:
        factor = self._rng.uniform(0.8, 1.2)
        product = self._rng.choice(self._products)
        with self._connection.transaction():
            self._do(
                "UPDATE products SET price_minor = greatest(100, (price_minor * %s)::bigint), updated_at = now()"
                " WHERE product_id = %s",
                factor,
                product,
            )
            if self._rated:
                self._do("UPDATE products SET rating = %s WHERE product_id = %s", self._rng.randint(1, 5), product)

    def add_product(self) -> None:
        self._product_number += 1
        product = f"N{self._product_number:05d}"
        self._do(
            "INSERT INTO products (product_id, name, category, price_minor, stock) VALUES (%s, %s, 'Yeni', %s, %s)",
            product,
            f"Ürün {self._product_number}",
            self._rng.randint(1_000, 90_000),
            self._rng.randint(0, 100),
        )
        self._products.append(product)

    def delete_product(self) -> bool:
        if len(self._products) < 20:
            return False
        product = _take(self._products, self._rng.randrange(len(self._products)))
        with self._connection.transaction():
            self._do("DELETE FROM inventory_movements WHERE product_id = %s", product)
            self._do("DELETE FROM products WHERE product_id = %s", product)
        return True

    def renumber_product(self) -> None:
        """A primary key changes, and with it the movements that refer to it."""
        index = self._rng.randrange(len(self._products))
        self._product_number += 1
        product, new = self._products[index], f"N{self._product_number:05d}"
        self._do("UPDATE products SET product_id = %s, updated_at = now() WHERE product_id = %s", new, product)
        self._products[index] = new

    def add_customer(self) -> None:
        self._customer_number += 1
        row = sample.customer(self._customer_number, self._rng)
        self._do(
            "INSERT INTO customers (customer_id, full_name, email, phone, region) VALUES (%s, %s, %s, %s, %s)", *row
        )
        self._customers.append(row[0])

    def change_customer(self) -> None:
        customer = self._rng.choice(self._customers)
        _, _, _, phone, region = sample.customer(1, self._rng)
        self._do(
            "UPDATE customers SET phone = %s, region = %s, updated_at = now() WHERE customer_id = %s",
            phone,
            region,
            customer,
        )

    def delete_customer(self) -> bool:
        """One who has not ordered."""
        customer = self._rng.choice(self._customers)
        gone = self._connection.execute(
            "DELETE FROM customers c WHERE customer_id = %s"
            " AND NOT EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id)",
            [customer],
        ).rowcount
        if gone:
            self._customers.remove(customer)
        return bool(gone)

    def add_column(self) -> None:
        """products gets the column `rating`, which later price changes fill."""
        self._do("ALTER TABLE products ADD COLUMN IF NOT EXISTS rating integer")
        self._rated = True

    def _move(self, product: str, delta: int, reason: str, order: str | None) -> int:
        """Stock and its movement, in the caller's transaction; what is not there is ordered. Returns the price."""
        row = self._connection.execute(
            "UPDATE products SET stock = stock + %s, updated_at = now() WHERE product_id = %s"
            " RETURNING price_minor, stock",
            [delta, product],
        ).fetchone()
        if row is None:
            raise CdcError(f"product {product} is gone: does another workload run?")
        price, stock = row
        self._do(
            "INSERT INTO inventory_movements (product_id, delta, reason, order_id) VALUES (%s, %s, %s, %s)",
            product,
            delta,
            reason,
            order,
        )
        if stock < 0:
            self._move(product, 50 - stock, "RESTOCK", None)
        return int(price)

    def _do(self, statement: LiteralString, *values: object) -> None:
        self._connection.execute(statement, values)

    def _column(self, query: LiteralString) -> list[str]:
        return [row[0] for row in self._connection.execute(query)]

    def _last(self, query: LiteralString) -> int:
        (last,) = self._column(query)
        return int(last.lstrip("WNuser-")) if last else 0


# What a shop does, by how often of a thousand.
KINDS: Final[dict[str, tuple[int, Callable[[Shop], bool | None]]]] = {
    "order": (440, Shop.order),
    "order status": (200, Shop.next_status),
    "order rolled back": (50, Shop.rolled_back),
    "order deleted": (25, Shop.delete_order),
    "restock": (70, Shop.restock),
    "stock counted": (30, Shop.count_stock),
    "price": (80, Shop.change_price),
    "product added": (12, Shop.add_product),
    "product deleted": (8, Shop.delete_product),
    "product renumbered": (15, Shop.renumber_product),
    "customer added": (20, Shop.add_customer),
    "customer changed": (40, Shop.change_customer),
    "customer deleted": (10, Shop.delete_customer),
}


def run(
    connection: psycopg.Connection[Any],
    transactions: int | None,
    *,
    seed: int,
    rate: float = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Counter[str]:
    """So many transactions (None: without end), a column added after the first half; how many of each kind there were.

    Args:
        rate: transactions a second; 0 is as fast as it goes.
    """
    rng = random.Random(seed)
    shop = Shop(connection, rng)
    names = list(KINDS)
    weights = [weight for weight, _ in KINDS.values()]
    done: Counter[str] = Counter()
    begin = time.monotonic()
    number = 0
    try:
        while transactions is None or number < transactions:
            if rate and (early := begin + number / rate - time.monotonic()) > 0:
                time.sleep(early)
            name = "column added" if transactions and number == transactions // 2 else rng.choices(names, weights)[0]
            do = KINDS[name][1] if name in KINDS else Shop.add_column
            if do(shop) is False:
                continue
            done[name] += 1
            number += 1
            progress(number)
    except KeyboardInterrupt:
        pass
    except psycopg.Error as error:
        raise CdcError(f"after {number} transactions: {' '.join(str(error).split())}") from error
    return done


def _take(items: list[str], index: int) -> str:
    """Takes one out, in constant time."""
    items[index], items[-1] = items[-1], items[index]
    return items.pop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="cdc.workload",
        description=(
            "Simulates the shop's writes to its database: orders that move stock, some rolled back; restocks, price"
            " changes, customers, deletes, changed primary keys, and, halfway through --transactions, a new column."
            " Run only one at a time."
        ),
        epilog="exit status: 0 done, or stopped by Ctrl-C or SIGTERM; 1 the database failed; 2 wrong input",
    )
    parser.add_argument("--transactions", type=_count, metavar="N", help="default: until Ctrl-C, without a new column")
    parser.add_argument(
        "--rate", type=_count, default=0, metavar="N", help="transactions per second (default: no limit)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="with the same seed and tables, the same changes (default: random)"
    )
    parser.add_argument("--database", default=LOCAL, metavar="URL", help=f"default: {LOCAL}")
    parser.add_argument(
        "--password_file", type=Path, metavar="FILE", help="password of the URL's user (default: PGPASSWORD)"
    )
    add_log_format(parser)
    options = parser.parse_args(arguments)
    stopped: list[int] = []
    Logs(options.log_format, "cdc.workload", "%(message)s").set_up(logging.INFO)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    started = last = time.monotonic()

    def progress(number: int) -> None:
        nonlocal last
        if stopped:
            raise KeyboardInterrupt  # here, as a transaction that is cut in two leaves its connection unusable
        if time.monotonic() - last > 2:
            last = time.monotonic()
            _LOG.info(f"{number} transactions, {number / (last - started):.0f}/s")

    try:
        where = Database.parse(options.database)
        with where.connect(owner_password(options.password_file, options.database)) as connection:
            # SIGTERM is how containers are stopped, and PID 1 has no default for it.
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, lambda number, _: stopped.append(number))
            done = run(connection, options.transactions, seed=seed, rate=options.rate, progress=progress)
    except WrongInput as error:
        parser.stop(error)
    except CdcError as error:
        _LOG.error(f"cdc.workload: {error}")
        return 1
    for name, count in sorted(done.items(), key=lambda item: -item[1]):
        print(f"{count:>8} {name}")
    print(f"{done.total():>8} transactions in {time.monotonic() - started:.1f} s, seed {seed}")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
