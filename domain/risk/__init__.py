"""What payments result in: rules, histories, labels and flags."""
