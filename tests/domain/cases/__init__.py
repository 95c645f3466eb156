"""Tests of domain/cases/."""
