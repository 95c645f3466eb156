"""Tests of stream/."""
