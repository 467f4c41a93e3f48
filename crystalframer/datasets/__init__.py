"""Labelled crystals: packed files, published sets, tables and folders of your own."""
