"""Local stack of programs from package registries, without Docker."""
