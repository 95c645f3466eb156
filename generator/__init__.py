"""Seeded synthetic payment traffic with its ground truth."""
