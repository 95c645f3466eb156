"""Reference jobs that benchmarks compare ours with."""
