"""Side-by-side measurements: the fraud job beside peers that do the same work, and its latency."""
