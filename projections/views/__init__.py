"""Case views for the console, folded from case events."""
