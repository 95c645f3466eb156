"""Intake of payments and labels, and the decisions on them."""
