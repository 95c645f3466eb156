"""What a record leads to, and what is then true: pure folds over ordered logs, standard library only."""
