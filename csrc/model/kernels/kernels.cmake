gc_kernel(model layers LEVELS base avx2 avx512)
