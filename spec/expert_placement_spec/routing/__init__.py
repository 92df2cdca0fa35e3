"""Routing: from the router's top-k ids to slots, counts and offsets. SPEC.md, "Routing"."""
