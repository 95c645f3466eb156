"""Worker programs that run beside the jobs."""
