"""From files and structures to batches."""
