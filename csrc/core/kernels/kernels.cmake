gc_kernel(core bandwidth LEVELS base avx2 avx512)
gc_kernel(core peak LEVELS base avx2 avx2_vnni avx512 avx512_vnni avx512_bf16 amx dotprod)
