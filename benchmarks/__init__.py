"""Speed, side by side in one run: `python -m benchmarks.attention`, `.training`, `.scaling`, `.loader` (see README)."""
