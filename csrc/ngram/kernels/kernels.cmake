gc_kernel(ngram wavelet_walk LEVELS base avx2)
