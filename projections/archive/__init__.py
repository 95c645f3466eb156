"""The archive: segments, proofs and signed heads of all logs."""
