"""The console's pages: their routes and what they are rendered from."""
