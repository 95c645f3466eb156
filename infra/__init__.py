"""The local stack: real parts from package registries, no Docker."""
