"""Steps of the control store's schema, oldest first, one file each."""
