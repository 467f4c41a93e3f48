"""CrystalFramer: predict crystal properties with a transformer, and see why."""
