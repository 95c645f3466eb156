"""Seeded synthetic traffic with its ground truth, and the door through which payments enter the log."""
