"""Crystals as numbers: one crystal, its neighbours, batches."""
