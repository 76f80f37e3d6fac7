"""Sorting the suffixes of shards: in memory where that fits, in blocks where it does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from gramcore import _core
from gramcore.errors import LimitError
from gramcore.ngram.files import Plan

__all__ = ["available_memory", "sort_shards"]

_MAX_BLOCKS = 4096  # each block costs a pass over the text behind it
_FIXED, _FIXED_PER_THREAD = 2 << 20, 2 << 20  # bytes
_MAX_IN_MEMORY = 2**31 - 1  # tokens; above, positions would need 8 bytes each


def available_memory() -> int:
    """Bytes that can be had without swapping, page cache included."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no such file on this system
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def fixed_bytes() -> int:
    """What sorting a shard takes whatever its length: buckets of token ids, and room of every thread."""
    return _FIXED + _FIXED_PER_THREAD * _core.num_threads()


def sort_bytes_per_token(width: int) -> int:
    """What sorting in memory takes: 4-byte positions, the text in dense symbols, a share for bucket counts.

    Bytes of which nearly every value occurs become symbols of 2 bytes.
    """
    return 4 + max(width, 2) + 1


def block_tokens(num_tokens: int, width: int, limit: int) -> int:
    """Tokens per block that sorting within ``limit`` bytes allows; 0: the whole shard is sorted in memory.

    Raises: LimitError when not even ``_MAX_BLOCKS`` blocks fit.
    """
    if num_tokens * sort_bytes_per_token(width) + fixed_bytes() <= limit and num_tokens < _MAX_IN_MEMORY:
        return 0
    per_text = _core.ngram.ChunkedSort.memory_bytes(num_tokens, 0)
    per_token = _core.ngram.ChunkedSort.memory_bytes(num_tokens, 1) - per_text
    fixed = per_text + fixed_bytes()
    block = min((limit - fixed) // per_token, _MAX_IN_MEMORY - 1)
    least = -(-num_tokens // _MAX_BLOCKS)
    if block < least:
        raise LimitError(
            f"memory_limit must be at least {fixed + per_token * least} bytes for a shard of {num_tokens} tokens, "
            f"got {limit}; raise it, or give more shards"
        )
    return int(-(-num_tokens // -(-num_tokens // block)))  # blocks of equal size


def sort_shards(directory: Path, plan: Plan, width: int, limit: int | None, threads: int, progress: bool) -> None:
    """Write ``table.N`` of every shard that has none yet."""
    todo = [n for n in range(len(plan.shards)) if not (directory / f"table.{n}").exists()]
    sizes = [plan.shards[n]["num_tokens"] for n in todo]
    if not todo:
        return
    budget = available_memory() * 3 // 4 if limit is None else limit
    at_once = _at_once(sizes, width, budget, threads)
    for number, size in zip(todo, sizes, strict=True):
        plan.blocks.setdefault(str(number), block_tokens(size, width, budget // at_once))
    _check_disk(directory, plan, todo, width)
    plan.write(directory)  # a later call sorts in the same blocks
    hide = None if progress else True
    with tqdm(total=sum(sizes), unit=" tokens", unit_scale=True, desc="sorting", disable=hide) as bar:

        def sort(number: int) -> None:
            _sort_shard(directory, number, width, plan.shards[number]["num_tokens"], plan.blocks[str(number)], bar)

        if at_once == 1:
            for number in todo:
                sort(number)
        else:
            with ThreadPoolExecutor(at_once) as pool:
                for done in [pool.submit(sort, number) for number in todo]:
                    done.result()


def _at_once(sizes: Sequence[int], width: int, budget: int, threads: int) -> int:
    """Shards sorted at the same time: as many as threads, if they then still fit in memory."""
    for number in range(min(threads, len(sizes)), 1, -1):
        needed = max(sizes) * sort_bytes_per_token(width) + fixed_bytes()
        if needed <= budget // number and max(sizes) < _MAX_IN_MEMORY:
            return number
    return 1


def _check_disk(directory: Path, plan: Plan, todo: Sequence[int], width: int) -> None:
    needed = 0
    for number in todo:
        tokens = plan.shards[number]["num_tokens"]
        pointer = -(-max((tokens * width - 1).bit_length(), 1) // 8)
        in_blocks = plan.blocks[str(number)] > 0
        needed += tokens * (pointer + (6 if in_blocks else 0))  # 4-byte positions, gaps and bits of blocks
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(f"{directory}: tables need up to {needed} bytes of free disk space, got {free}; make room")


def _sort_shard(directory: Path, number: int, width: int, tokens: int, block: int, bar: tqdm) -> None:
    tokenized, table = directory / f"tokenized.{number}", directory / f"table.{number}"
    if block == 0:
        done = 0

        def show(part: float) -> None:
            nonlocal done
            bar.update(int(part * tokens) - done)
            done = int(part * tokens)

        _core.ngram.build_table(str(tokenized), str(table), width, show)
        bar.update(tokens - done)
        return
    sorter = _core.ngram.ChunkedSort(str(tokenized), str(table), width, block)
    done = sorter.num_done()
    bar.update(tokens - min((sorter.num_blocks() - done) * block, tokens))
    for left in range(sorter.num_blocks() - done, 0, -1):
        sorter.sort_next()
        bar.update(min(block, tokens - (left - 1) * block))
    sorter.merge()
