"""Replaying recorded logs and comparing what results."""
