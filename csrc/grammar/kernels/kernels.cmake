gc_kernel(grammar apply_bitmask LEVELS base avx2 avx512)
