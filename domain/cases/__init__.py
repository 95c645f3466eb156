"""Cases of an account: the commands and flags that they read, and the events that follow."""
