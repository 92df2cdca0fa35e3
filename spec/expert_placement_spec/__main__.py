"""`python -m expert_placement_spec`."""

from expert_placement_spec.command import main

if __name__ == "__main__":
    main()
