"""Pictures of what a CrystalFramer model looks at."""
