"""Personal data: sealing, erasure and scrubbing."""
