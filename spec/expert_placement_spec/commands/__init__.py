"""The commands of `expert-placement-spec`, one file each, and what they share."""
