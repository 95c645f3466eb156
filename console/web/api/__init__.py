"""The HTTP API: its routes, one file per resource."""
