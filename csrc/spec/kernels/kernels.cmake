gc_kernel(spec rows LEVELS base avx2 avx512)
