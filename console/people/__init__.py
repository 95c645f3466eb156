"""People's accounts, their roles, and single sign-on."""
