"""Tests of console/web/."""
