"""The one place that states the version; everything else reads it from here."""

__version__ = "0.2.0"
