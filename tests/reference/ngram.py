"""Slow twins of the n-gram engines: brute force over the token list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def byte_key(token: int, width: int) -> bytes:
    """How infini-gram's order sees a token."""
    return token.to_bytes(width, "little")


def suffix_array(tokens: Sequence[int], width: int) -> list[int]:
    """All suffixes sorted by their bytes, shorter first."""
    return sorted(range(len(tokens)), key=lambda i: b"".join(byte_key(t, width) for t in tokens[i:]))


def flat(documents: Sequence[Sequence[int]], width: int, *, reverse: bool = False) -> list[int]:
    """The text of an index: a separator, then the document, for each document."""
    separator = 256**width - 1
    return [t for d in documents for t in (separator, *(reversed(d) if reverse else d))]


def occurrences(text: Sequence[int], ids: Sequence[int]) -> list[int]:
    """Start positions of ``ids``."""
    n = len(ids)
    return [i for i in range(len(text) - n + 1) if list(text[i : i + n]) == list(ids)]


def longest_repeat(text: Sequence[int]) -> int:
    """Length of the longest suffix that also ends earlier."""
    n = len(text)
    for length in range(n - 1, 0, -1):
        if any(list(text[e - length : e]) == list(text[n - length :]) for e in range(length, n)):
            return length
    return 0


def recent_draft(text: Sequence[int], max_tokens: int, *, first: bool = False) -> list[int]:
    """What followed the latest (or first) earlier occurrence of the longest repeated suffix, periods continued."""
    length = longest_repeat(text)
    if length == 0:
        return []
    n = len(text)
    ends = [e for e in range(length, n) if list(text[e - length : e]) == list(text[n - length :])]
    end = ends[0] if first else ends[-1]
    grown = list(text)
    for j in range(max_tokens):
        grown.append(grown[end + j])
    return grown[n:]


def frequent_draft(text: Sequence[int], max_tokens: int) -> list[int]:
    """Greedy most frequent continuation of the longest repeated suffix; ties go to the smaller token."""
    length = longest_repeat(text)
    context = list(text[len(text) - length :])
    out: list[int] = []
    while length and len(out) < max_tokens:
        followers = [text[i + len(context)] for i in occurrences(text, context) if i + len(context) < len(text)]
        if not followers:
            break
        out.append(min(set(followers), key=lambda t: (-followers.count(t), t)))
        context.append(out[-1])
    return out


def fibonacci_word(n: int) -> npt.NDArray[np.uint16]:
    """The first n symbols of the Fibonacci word over {0, 1}: the most repetitive non-periodic text."""
    a, b = [0], [0, 1]
    while len(b) < n:
        a, b = b, b + a
    return np.array(b[:n], np.uint16)


def next_tokens(texts: Sequence[Sequence[int]], prompt: Sequence[int]) -> dict[int, int]:
    """Counts of what follows a prompt in several texts."""
    counts: dict[int, int] = {}
    for text in texts:
        for i in occurrences(text, prompt):
            if i + len(prompt) < len(text):
                token = text[i + len(prompt)]
                counts[token] = counts.get(token, 0) + 1
    return counts


def count(texts: Sequence[Sequence[int]], ids: Sequence[int]) -> int:
    """Occurrences in several texts; the empty n-gram occurs once per token."""
    return sum(len(occurrences(t, ids)) if ids else len(t) for t in texts)


def longest_suffix(texts: Sequence[Sequence[int]], prompt: Sequence[int]) -> int:
    """Length of the longest suffix of a prompt that occurs."""
    return max(n for n in range(len(prompt) + 1) if n == 0 or count(texts, prompt[len(prompt) - n :]))


def match_ends(texts: Sequence[Sequence[int]], ids: Sequence[int]) -> list[int]:
    """End of the longest match beginning at each position."""
    return [max(e for e in range(i, len(ids) + 1) if e == i or count(texts, ids[i:e])) for i in range(len(ids))]


def match_ends_left(texts: Sequence[Sequence[int]], taken: Sequence[Sequence[int]], ids: Sequence[int]) -> list[int]:
    """End of the longest match beginning at each position that occurs more often in the texts than in those taken."""
    return [
        max(e for e in range(i, len(ids) + 1) if e == i or count(texts, ids[i:e]) > count(taken, ids[i:e]))
        for i in range(len(ids))
    ]
