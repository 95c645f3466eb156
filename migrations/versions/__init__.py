"""The steps of the control store's schema, oldest first; a new one goes into a file of its own."""
