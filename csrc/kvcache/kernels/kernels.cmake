gc_kernel(kvcache tree_attention LEVELS base avx2 avx512 avx512_bf16 amx)
