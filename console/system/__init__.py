"""The whole system on one machine: start, stop, first contents, searches."""
