"""The full counts of what `make test` carries one case of each of."""
