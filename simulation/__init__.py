"""A deterministic simulation: real jobs on a simulated log, clock and runner, with faults, from one number.

    python -m simulation --seeds=300
    python -m simulation --seed=17 --trace

docs/proof.md says what it promises, and what it does not cover.
"""
