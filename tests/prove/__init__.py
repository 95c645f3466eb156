"""The full counts of the properties that `make test` checks with one case each."""
