"""The versions of the case views, and which of them is live."""
