"""Decisions at the checkout: `POST /api/v1/decisions` says allow, review or block of an order that is not placed yet.

ruleset  the rules' file, and which version of it this is
judge    a user's stored orders and a new one, judged by the rules of the fraud job
routes   the addresses, what they answer, and what they answer while the store is away

Off unless `--decisions` is given; then nothing here is imported.
"""
