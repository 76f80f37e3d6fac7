"""``Decoder``: Llama-family models run by the native forward, without torch unless the weights come from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gramcore import _core
from gramcore._checks import check_choice, check_int
from gramcore.model.native import Weights, read_gguf, read_module

if TYPE_CHECKING:
    from typing import Self

    from gramcore.spec import Host

__all__ = ["Decoder"]

F32 = npt.NDArray[np.float32]
Ids = Sequence[int] | npt.NDArray[np.integer]
_KV_DTYPES = ("float32", "bfloat16", "float16", "int8")


def split_rows(rows: F32, counts: Sequence[int]) -> list[F32]:
    """The first ``counts[0]`` rows, the next ``counts[1]`` and so on."""
    ends = np.cumsum(counts)
    return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]


class Decoder:
    """A causal language model in C++: prefill, decoding, draft trees, rollback.

    Supports Llama, Mistral, Qwen2, Qwen3 and SmolLM2 shapes: RMS norms, rotary positions, grouped heads, optional
    q/k/v biases and q/k norms, SwiGLU, tied or separate head.  Weights are dense fp32/bf16 or packed low-bit; one
    dispatch of the thread pool runs all layers of a forward.  A row's logits do not depend on the rows computed with
    it: those of a tree node equal, bit for bit, plain decoding of its path.

    Make one with :meth:`from_gguf`, :meth:`from_pretrained` or :meth:`from_module`.

    Attributes:
        vocab_size: columns of the logits.
        max_len: slots of the cache.
        eos_token_ids: ids after which :meth:`generate` stops by default.

    Example:
        >>> from gramcore.model import Decoder
        >>> Decoder.from_gguf("nowhere.gguf")
        Traceback (most recent call last):
            ...
        FileNotFoundError: no model at 'nowhere.gguf'; give a GGUF file, a folder with one, or one of smollm2
    """

    def __init__(self, weights: Weights, *, max_len: int | None = None, kv_dtype: str | None = None) -> None:
        self._native = weights.native
        self._sizes = weights.sizes
        self.vocab_size = weights.sizes["vocab"]
        self.max_len = check_int("max_len", weights.context_len if max_len is None else max_len, low=1)
        chosen = ("float16" if weights.low_bit else "float32") if kv_dtype is None else kv_dtype
        self.kv_dtype = check_choice("kv_dtype", chosen, _KV_DTYPES)
        self.eos_token_ids = weights.eos_token_ids
        self._cache = self.new_cache()

    @classmethod
    def from_gguf(
        cls, path_or_name: str | Path, *, max_len: int | None = None, kv_dtype: str | None = None, dense: bool = False
    ) -> Self:
        """Load a GGUF file; codes and scales are repacked, not quantised again.

        Args:
            path_or_name: path of the file, a folder with one, or ``"smollm2"`` for the packaged model.
            max_len: slots of the cache, >= 1; default the model's context length.
            kv_dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"`` (a factor per slot and head); default
                float16 with low-bit weights, else float32.
            dense: expand all weights to fp32.

        Raises:
            FileNotFoundError: no such file.
            FormatError: the file is corrupt or no whole model.
            ValueError: unsupported architecture; the message names those supported.
        """
        return cls(read_gguf(path_or_name, dense=dense), max_len=max_len, kv_dtype=kv_dtype)

    @classmethod
    def from_module(cls, model: Any, *, max_len: int | None = None, kv_dtype: str | None = None) -> Self:
        """Take the weights of a ``transformers`` causal language model (copied; fp32 and bf16 stay what they are).

        Layers that :func:`gramcore.quant.quantize_` replaced keep their codes; those of BiLLM alone are expanded to
        fp32.  Layers of integer codes round activations to int8, those of table codes (power exponents, fp8) do not.

        Args:
            model: LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM, quantised or not.
            max_len: slots of the cache; default the configuration's ``max_position_embeddings``.
            kv_dtype: as for :meth:`from_gguf`; default float32, float16 with low-bit layers.

        Raises:
            ValueError: architecture or a variant of it is not supported; the message says which are.
        """
        return cls(read_module(model), max_len=max_len, kv_dtype=kv_dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, max_len: int | None = None, kv_dtype: str | None = None) -> Self:
        """Load a folder written by ``save_pretrained`` (needs transformers); nothing is downloaded.

        Raises:
            FileNotFoundError: no such folder.
            ValueError: unsupported architecture.
        """
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"folder must hold a saved model, got {str(folder)!r}")
        from gramcore.model.hf import saved_model

        return cls.from_module(saved_model(folder, dtype="auto"), max_len=max_len, kv_dtype=kv_dtype)

    @property
    def length(self) -> int:
        """Committed tokens in the cache."""
        return int(self._cache.length)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as stored."""
        return int(self._native.weight_bytes)

    def new_cache(self, capacity: int | None = None) -> Any:
        """An empty native cache for another sequence over the same weights (see ``cache`` of :meth:`forward`).

        Args:
            capacity: slots, >= 1; default ``max_len``.  Memory is used only as far as slots are.
        """
        s, slots = self._sizes, self.max_len if capacity is None else check_int("capacity", capacity, low=1)
        return _core.model.Cache(s["layers"], s["kv_heads"], slots, s["head_dim"], self.kv_dtype)

    def forward(
        self,
        ids: Ids,
        tree: Ids | None = None,
        *,
        last_only: bool = False,
        cache: Any = None,
    ) -> F32:
        """Logits of new tokens after the committed ones.

        A chain (``tree`` None) is committed.  A draft tree waits: call :meth:`compact` with the accepted path.

        Args:
            ids: (n,) token ids, n >= 1; length + n <= max_len.
            tree: (n,) parent of every node, -1 for children of the context, parents first; n <= 512.
            last_only: logits of the last row only.
            cache: a cache of :meth:`new_cache`; default the decoder's own.

        Returns:
            (n, vocab_size) float32, or (1, vocab_size).

        Raises:
            ValueError: no ids, cache full, or parents out of order.
            IndexError: an id outside the vocabulary.
        """
        if len(ids) == 0:
            raise ValueError("ids must hold at least one token, got 0")
        caches = [self._cache if cache is None else cache]
        logits, _ = self._native.forward(caches, [ids], [tree], "last" if last_only else "all", False)
        return np.asarray(logits)

    def forward_batch(
        self,
        ids: Sequence[Ids],
        trees: Sequence[Ids | None] | None = None,
        *,
        caches: Sequence[Any],
        last_only: bool = False,
    ) -> list[F32]:
        """Logits of new tokens of several sequences in one forward: their rows share each read of the weights.

        Sequences may have any lengths and numbers of tokens, chains beside trees; nothing is padded. Every row gets the
        bits that :meth:`forward` gives it alone.  Cost: one read of the weights per 512 rows of all sequences together.

        Args:
            ids: token ids per sequence; a sequence without ids is left alone.
            trees: per sequence the parents of its nodes as for :meth:`forward` (the tree waits for
                ``cache.commit_path``), or None: a chain, committed.  Default: chains only.
            caches: one of :meth:`new_cache` per sequence, all different.
            last_only: logits of each sequence's last row only.

        Returns:
            Per sequence (n, vocab_size) float32, with ``last_only`` (min(n, 1), vocab_size).

        Raises:
            ValueError: as :meth:`forward`, numbers of sequences differ, or a cache is given twice; no cache changes.
            IndexError: an id outside the vocabulary; no cache changes.

        Example:
            >>> import numpy as np, transformers
            >>> from gramcore.model import Decoder
            >>> sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1)
            >>> config = transformers.LlamaConfig(**sizes, num_attention_heads=2, max_position_embeddings=64)
            >>> decoder = Decoder.from_module(transformers.LlamaForCausalLM(config).eval())
            >>> a, b = decoder.new_cache(), decoder.new_cache()
            >>> both = decoder.forward_batch([[1, 2, 3], [4, 5]], [None, [-1, -1]], caches=[a, b])
            >>> [x.shape for x in both], a.length, b.pending
            ([(3, 50), (2, 50)], 3, 2)
            >>> np.array_equal(both[0], decoder.forward([1, 2, 3]))
            True
        """
        logits, _ = self._native.forward(list(caches), ids, trees, "last" if last_only else "all", False)
        return split_rows(logits, [min(len(row), 1) if last_only else len(row) for row in ids])

    def compact(self, path: Ids) -> None:
        """Commit the nodes ``path`` (strictly increasing) of the last tree and drop the others."""
        self._cache.commit_path(np.ascontiguousarray(path, np.int64))

    def rollback(self, count: int) -> None:
        """Forget the last ``count`` committed tokens, 0 <= count <= length."""
        check_int("count", count, low=0, high=self.length)
        self._cache.truncate(self.length - count)

    def reset(self) -> None:
        """Forget all tokens."""
        self._cache.truncate(0)

    def host(self) -> Host:
        """This model as the target of ``gramcore.spec.generate``, which drafts and verifies trees on it."""
        from gramcore.model.host import DecoderHost

        return DecoderHost(self)

    def generate(
        self,
        ids: Ids,
        *,
        max_new_tokens: int = 128,
        eos_token_id: int | Iterable[int] | None = None,
    ) -> list[int]:
        """Greedy continuation of a prompt, starting from an empty cache.

        Args:
            ids: the prompt, at least one token.
            max_new_tokens: >= 0.
            eos_token_id: id or ids that end the text (kept in the result); default ``eos_token_ids``.

        Returns:
            The new tokens.
        """
        check_int("max_new_tokens", max_new_tokens, low=0)
        given = self.eos_token_ids if eos_token_id is None else eos_token_id
        stop = {given} if isinstance(given, int) else set(given)
        self.reset()
        out: list[int] = []
        if max_new_tokens == 0:
            return out
        row = self.forward(ids, last_only=True)
        while True:
            out.append(int(row[0].argmax()))
            if len(out) == max_new_tokens or out[-1] in stop or self.length == self.max_len:
                return out
            row = self.forward(out[-1:], last_only=True)
