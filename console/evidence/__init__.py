"""Evidence packs: making, reporting and verifying them."""
