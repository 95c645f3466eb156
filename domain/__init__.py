"""Pure folds over ordered logs: from records and a state to decisions and the next state."""
