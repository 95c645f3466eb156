"""What tests share: builders, fakes, an oracle, and an in-memory system for pages."""
