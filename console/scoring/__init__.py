"""Scoring of decisions against ground truth, and tuning of rule packs."""
