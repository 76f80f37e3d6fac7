"""N-gram engines over token sequences: suffix automata and suffix-array indexes."""
