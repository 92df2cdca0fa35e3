"""Files: our own format of a placement, one module for each foreign one, and what they share."""
