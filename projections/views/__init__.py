"""Case views: folding case events into what the console reads."""
