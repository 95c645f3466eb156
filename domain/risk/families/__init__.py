"""Rule families, one file each: parameters, check, measurement and documentation of a family together."""
