"""Scoring decisions against the truth, and tuning rule packs."""
