"""Tests of projections/logs/."""
