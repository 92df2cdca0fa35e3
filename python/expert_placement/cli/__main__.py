"""`python -m expert_placement.cli`, for where the script is not on the path."""

import sys

from expert_placement.cli import main

sys.exit(main())
