"""Tests of projections/views/."""
