"""What flags and commands result in: cases and their events."""
