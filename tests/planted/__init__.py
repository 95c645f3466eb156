"""Bugs on purpose: each is planted in a copy of the source, and the tests that are named must find it.

A suite that passes proves little unless it fails where the code is wrong. `python -m tests.planted` plants all of them,
one after the other; `--list` tells which there are.
"""
