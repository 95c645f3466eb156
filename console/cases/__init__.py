"""Cases as people work on them: commands, queue, timelines, attachments."""
