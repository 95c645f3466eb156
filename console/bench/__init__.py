"""Benchmarks of `fraudcase bench`."""
