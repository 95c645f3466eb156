"""Payments and labels on their way in, and the decisions on them."""
