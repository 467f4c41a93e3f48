"""Benchmarks of speed, side by side in one run: `python -m benchmarks.attention`, `.training`, ... (see README)."""
