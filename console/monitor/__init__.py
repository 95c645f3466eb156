"""Live figures and the health of the system."""
