"""Tests of projections/archive/."""
