"""Maths of the attention layer as pure functions: segments, edges, bases and frames."""
