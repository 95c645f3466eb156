"""Recorded history: replay, rebuild and what-if."""
