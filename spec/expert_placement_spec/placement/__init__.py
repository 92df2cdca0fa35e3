"""Which logical expert each physical slot holds. SPEC.md, "Topology", "Placement", "Loads" and "Balance"."""
