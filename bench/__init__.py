"""Benchmarks: verify, then time, then compare in the same run."""
