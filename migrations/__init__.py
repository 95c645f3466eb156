"""The control store: what people set up (rule packs and who approved them), in SQLite or PostgreSQL."""
