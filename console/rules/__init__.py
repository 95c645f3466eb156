"""Rule packs: their files, approvals and activations, and why a rule fired."""
