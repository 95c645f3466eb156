"""Reference jobs that `fraudcase bench stream` compares the risk job with."""
