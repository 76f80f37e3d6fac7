gc_kernel(core bandwidth LEVELS base avx2 avx512)
