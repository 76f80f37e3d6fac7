gc_kernel(optim rules LEVELS base avx2 avx512)
gc_kernel(optim codecs LEVELS base avx2 avx512)
gc_kernel(optim blocks LEVELS base avx2 avx512)
gc_kernel(optim gauss LEVELS base avx2 avx512)
