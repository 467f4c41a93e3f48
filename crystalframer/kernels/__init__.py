"""Compiled kernels of framed attention for the CPU, and what calls them on NumPy arrays. Nothing here needs torch."""
