"""Registry rows of the automata, indexes and what is built on them."""

from __future__ import annotations

from gramcore._registry import Row, register

register(
    Row(
        "SuffixAutomaton",
        "ngram",
        "automaton",
        "gramcore.ngram:SuffixAutomaton",
        "every substring of a growing text, drafts, undo",
        "Blumer et al. 1985",
        {"online": True, "rollback": True},
    ),
    Row(
        "InfiniGram",
        "ngram",
        "index",
        "gramcore.ngram:Index",
        "suffix-array index in infini-gram's file layout",
        "Liu et al. 2024, arXiv:2401.17377",
        {"exact": True, "on_disk": True},
    ),
    Row(
        "FMIndex",
        "ngram",
        "index",
        "gramcore.ngram:FMIndex",
        "compressed index that replaces the text, extended token-wise",
        "Ferragina & Manzini 2000; Claude et al. 2015",
        {"exact": True, "successors": True},
    ),
    Row(
        "SEAL",
        "ngram",
        "retriever",
        "gramcore.ngram:SealRetriever",
        "retrieval by constrained generation of occurring n-grams",
        "Bevilacqua et al. 2022, arXiv:2204.10628",
    ),
    Row(
        "InfinigramInterpolation",
        "ngram",
        "logits_processor",
        "gramcore.ngram:InfinigramLogitsProcessor",
        "infini-gram estimates mixed into a neural model, tuned weights",
        "Liu et al. 2024, arXiv:2401.17377",
    ),
)
