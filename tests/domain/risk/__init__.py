"""Tests of domain/risk/."""
