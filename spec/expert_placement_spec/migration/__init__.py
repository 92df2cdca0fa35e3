"""The way from one placement to another. SPEC.md, "Migration"."""
