"""Control store: rule packs and their approvals, people, keys and runs, in SQLite or PostgreSQL."""
