"""Signing in: with a password, or with single sign-on."""
