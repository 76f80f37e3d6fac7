"""Speculative decoding: drafters, draft trees, verifiers and one loop."""
