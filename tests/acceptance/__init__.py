"""Tests that drive the real stack."""
