"""What tests share: builders, fakes, an oracle, a stage for pages."""
