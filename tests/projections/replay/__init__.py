"""Tests of projections/replay/."""
