"""Benchmarks: ratios, both sides in one run. They use the two programs as users do; nothing imports them."""
