"""Benchmarks: what `fraudcase bench` measures."""
