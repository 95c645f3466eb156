"""Read models of the logs: case views, archives, and the replay that derives all of it again."""
