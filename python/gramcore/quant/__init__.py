"""Low-bit weights: codecs, packed tensors and the matmuls that read them."""
