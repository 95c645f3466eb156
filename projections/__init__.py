"""Read models of the logs: case views and archives, and the replay that derives them again."""
