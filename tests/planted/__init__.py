"""Deliberate bugs: each is planted in a copy of the source, and the named tests must find it.

A suite that passes proves little unless it fails when the code is wrong. `python -m tests.planted` plants all bugs, one
after the other; `--list` prints them.
"""
