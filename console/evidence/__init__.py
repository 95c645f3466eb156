"""Evidence packs: creation, report and verification."""
