gc_kernel(quant qgemm LEVELS base avx2 avx2_vnni avx512_vnni avx512_vbmi amx dotprod)
gc_kernel(quant fgemm LEVELS base avx2 avx512_vnni dotprod)
gc_kernel(quant tgemm LEVELS base avx2 avx512_vnni avx512_vbmi dotprod)
