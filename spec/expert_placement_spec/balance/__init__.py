"""Where the replicas of every expert should live. SPEC.md, "Rebalancing" and the chapters that it names."""
