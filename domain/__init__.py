"""What a record leads to, and what is then true: pure folds over ordered logs, with little but the standard library."""
