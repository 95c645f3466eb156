"""Replay of recorded logs, and comparison with the recorded history."""
