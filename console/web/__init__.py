"""The console over HTTP: the API under /api/v1, and the pages for people."""
