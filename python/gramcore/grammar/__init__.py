"""Grammar-constrained decoding: token masks from regular expressions and JSON Schema."""
