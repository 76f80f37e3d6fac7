"""One registry row per optimizer: what ``create``, ``gramcore optim list`` and the conformance suites read."""

from __future__ import annotations

from typing import Any

from gramcore._registry import Row, register


def _row(
    name: str,
    home: str,
    summary: str,
    paper: str,
    reference: str = "",
    fixed: dict[str, Any] | None = None,
    **test_kwargs: Any,
) -> Row:
    """A row: ``fixed`` are the arguments that make the factory this algorithm, given by ``create`` too; ``reference``
    names the twin in tests/reference/optim that shares the test arguments."""
    factory = f"gramcore.optim.{home}"
    own = fixed or {}
    facts = {"reference": reference, "fixed": own}
    return Row(name, "optim", "optimizer", factory, summary, paper, facts, {**own, **test_kwargs})


register(
    _row(
        "AdamW",
        "adamw:AdamW",
        "Adam with decoupled weight decay, one pass, any storage",
        "Loshchilov and Hutter 2019, arXiv:1711.05101",
        "adamw",
        lr=1e-2,
    ),
    _row(
        "AdamW-8bit",
        "adamw:AdamW",
        "AdamW with moments in a dynamic 8-bit map",
        "Dettmers et al. 2022, arXiv:2110.02861",
        lr=1e-2,
        fixed={"state": "int8"},
    ),
    _row(
        "AdamW-4bit",
        "adamw:AdamW",
        "AdamW with moments in 4 bits, zero-free second moment",
        "Li et al. 2023, arXiv:2309.01507",
        lr=1e-2,
        fixed={"state": "int4"},
    ),
    _row(
        "AdamW-4bit-rank1",
        "adamw:AdamW",
        "4-bit AdamW, second moments normalised by row and column",
        "Li et al. 2023, arXiv:2309.01507",
        lr=1e-2,
        fixed={"state": "int4-rank1"},
    ),
    _row(
        "AdamWScale",
        "adamw:AdamW",
        "AdamW with steps scaled by the RMS of each weight",
        "Nawrot 2023, arXiv:2309.02373",
        "adamw_scale",
        lr=1e-2,
        fixed={"rms_scale": True},
    ),
    _row(
        "Grams",
        "grams:Grams",
        "magnitude of Adam, direction of the gradient",
        "Cao et al. 2024, arXiv:2412.17107",
        "grams",
        lr=1e-2,
    ),
    _row(
        "Lion", "lion:Lion", "sign of an interpolated momentum", "Chen et al. 2023, arXiv:2302.06675", "lion", lr=1e-3
    ),
    _row(
        "Lion-8bit",
        "lion:Lion",
        "Lion with an 8-bit momentum",
        "Chen et al. 2023, arXiv:2302.06675",
        lr=1e-3,
        fixed={"state": "int8"},
    ),
    _row("SGD", "sgd:SGD", "gradient descent without state", "", "sgd", lr=1e-2),
    _row(
        "SGD-momentum",
        "sgd:SGD",
        "gradient descent with Nesterov momentum",
        "",
        "sgd",
        lr=1e-2,
        fixed={"momentum": 0.9, "nesterov": True},
    ),
    _row(
        "Sophia",
        "sophia:Sophia",
        "momentum over clipped diagonal curvature",
        "Liu et al. 2023, arXiv:2305.14342",
        "sophia",
        lr=1e-3,
    ),
    _row(
        "GaLore",
        "lowrank:galore",
        "Adam in the top singular subspace of gradients",
        "Zhao et al. 2024, arXiv:2403.03507",
        "galore",
        lr=1e-2,
        rank=2,
        refresh_every=10,
        method="svd",
    ),
    _row(
        "GaLore+",
        "lowrank:galore_plus",
        "GaLore sharing one head's subspace",
        "Liao et al. 2024, arXiv:2412.19820",
        lr=1e-2,
        rank=2,
        heads=2,
        refresh_every=3,
    ),
    _row(
        "Fira",
        "lowrank:fira",
        "GaLore plus a scaled, growth-limited residual",
        "Chen et al. 2024, arXiv:2410.01623",
        "fira",
        lr=1e-2,
        rank=2,
        refresh_every=10,
        method="svd",
    ),
    _row(
        "APOLLO",
        "sketched:apollo",
        "raw gradients scaled through a random projection",
        "Zhu et al. 2024, arXiv:2412.05270",
        "apollo",
        lr=1e-2,
        rank=2,
        refresh_every=10,
    ),
    _row(
        "APOLLO-Mini",
        "sketched:apollo_mini",
        "APOLLO of rank 1, one scale per tensor",
        "Zhu et al. 2024, arXiv:2412.05270",
        "apollo_mini",
        lr=1e-2,
        refresh_every=10,
    ),
    _row(
        "FRUGAL",
        "sketched:frugal",
        "AdamW in a subspace, sign descent outside it",
        "Zmushko et al. 2024, arXiv:2411.07837",
        "frugal",
        lr=1e-2,
        refresh_every=10,
    ),
    _row(
        "GWT",
        "sketched:gwt",
        "Adam on coarse wavelet coefficients",
        "Wen et al. 2025, arXiv:2501.07237",
        "gwt",
        lr=1e-2,
    ),
    _row(
        "Grass",
        "sketched:grass",
        "Adam on selected gradient rows",
        "Muhamed et al. 2024, arXiv:2406.17660",
        "grass",
        lr=1e-2,
        rank=2,
        refresh_every=10,
    ),
    _row(
        "Adafactor",
        "factored:Adafactor",
        "row and column second moments, no first moment",
        "Shazeer and Stern 2018, arXiv:1804.04235",
        "adafactor",
        lr=1e-2,
    ),
    _row(
        "AdaLomo",
        "factored:Adafactor",
        "Adafactor's grouped rule, for steps fused into backward",
        "Lv et al. 2023, arXiv:2310.10195",
        "adafactor",
        lr=1e-2,
        fixed={"relative_step": False},
    ),
    _row(
        "CAME",
        "factored:CAME",
        "factored second moment with confidence-guided momentum",
        "Luo et al. 2023, arXiv:2307.02047",
        "came",
        lr=1e-3,
    ),
    _row(
        "AdamW-4bit-Factor",
        "factored:Factor4bit",
        "4-bit first moment, factored second moment",
        "Li et al. 2023, arXiv:2309.01507",
        lr=1e-2,
    ),
    _row(
        "Adam-mini",
        "adam_mini:AdamMini",
        "one second-moment number per block of rows",
        "Zhang et al. 2024, arXiv:2406.16793",
        "adam_mini",
        lr=1e-2,
    ),
)

register(
    _row(
        "COSMOS",
        "cosmos:COSMOS",
        "Adam in the leading eigenspace, orthogonalised step outside",
        "Liu et al. 2025, arXiv:2502.17410",
        "cosmos",
        lr=1e-2,
        rank=2,
    ),
)
register(
    _row(
        "GradNormLoRP",
        "gradnorm:gradnorm_lorp",
        "GaLore on row directions, Adam on row magnitudes",
        "Huang et al. 2024, arXiv:2412.19616",
        "gradnorm_lorp",
        lr=1e-2,
        rank=2,
        refresh_every=10,
        method="svd",
    ),
)


def _tool(name: str, home: str, summary: str, paper: str, takes: str = "", base: str = "", **test_kwargs: Any) -> Row:
    """A row of something that works around an optimizer; tests/optim/test_tools.py drives these.

    ``takes`` says what ``create`` gives the factory: blocks, optimizer, or model+optimizer; empty for what is not made
    by name. ``base`` names the optimizer that ``create`` wraps by default.
    """
    facts = {"takes": takes, "base": base, "fixed": test_kwargs if takes else {}}
    return Row(name, "optim", "optimizer_tool", f"gramcore.optim.{home}", summary, paper, facts, test_kwargs)


register(
    _tool(
        "LOMO",
        "fused_backward:FusedBackward",
        "steps fused into backward",
        "Lv et al. 2023, arXiv:2306.09782",
        "optimizer",
        "SGD",
    ),
    _tool("BAdam", "badam:BAdam", "AdamW on one block at a time", "Luo et al. 2024, arXiv:2404.02827", "blocks"),
    _tool(
        "SAM",
        "sam:SAM",
        "gradient at the worst nearby weights",
        "Foret et al. 2021, arXiv:2010.01412",
        "optimizer",
        "AdamW",
    ),
    _tool(
        "FSAM",
        "sam:SAM",
        "SAM on the weights of largest Fisher information",
        "Zhong et al. 2022, arXiv:2210.05497",
        "optimizer",
        "AdamW",
        keep_frac=0.1,
    ),
    _tool(
        "MKOR",
        "mkor:MKOR",
        "Kronecker factors inverted by rank-1 updates",
        "Mozaffari et al. 2023, arXiv:2306.01685",
        "model+optimizer",
        "AdamW",
    ),
    _tool(
        "LoRA-GGPO",
        "perturb:LoraPerturbation",
        "adapters trained under noise sized by weights and gradients",
        "Chang et al. 2025, arXiv:2502.14538",
    ),
    _tool(
        "HierarchicalRegularisation",
        "importance:ImportancePull",
        "important weights pulled back, element- and layer-wise",
        "Song et al. 2025, arXiv:2501.13669",
        strength=1.0,
    ),
    _tool("LAWA", "lawa:LAWA", "mean of the latest snapshots", "Kaddour 2022, arXiv:2209.14981", every=10),
    _tool(
        "SPDF",
        "spdf:SparseMask",
        "sparse pre-training, dense fine-tuning",
        "Thangarasa et al. 2023, arXiv:2303.10464",
        sparsity_frac=0.75,
    ),
    _tool(
        "Spectrum",
        "spectrum:spectrum_freeze",
        "train the layers of best signal-to-noise ratio",
        "Hartford et al. 2024, arXiv:2406.06623",
    ),
)


def _zeroth(name: str, home: str, summary: str, paper: str, takes: str = "params", **test_kwargs: Any) -> Row:
    """A row of a zeroth-order optimizer; ``takes`` says what its factory is given: params, blocks or model."""
    return Row(name, "optim", "zeroth_order", f"gramcore.optim.{home}", summary, paper, {"takes": takes}, test_kwargs)


_ZO = "Zhang et al. 2024, arXiv:2402.11592"
register(
    _zeroth("MeZO", "zo:mezo", "two forward passes and a seed", "Malladi et al. 2023, arXiv:2305.17333", lr=1e-2),
    _zeroth("ZO-SGD-MMT", "zo:zo_momentum", "zeroth-order SGD with momentum", _ZO, lr=2e-3),
    _zeroth("ZO-SGD-Sign", "zo:zo_sign", "the sign of the slope along a random direction", _ZO, lr=1e-2),
    _zeroth("ZO-SGD-Cons", "zo:zo_conservative", "best of a step forward, back and none", _ZO, lr=1e-2),
    _zeroth("ZO-Adam", "zo:zo_adam", "AdamW on zeroth-order estimates", _ZO, lr=1e-2),
    _zeroth("ZO-Sparse", "zo:zo_sparse", "directions with most elements zero", _ZO, lr=1e-2, keep_frac=0.5),
    _zeroth("ZO-Blockwise", "zo:zo_blockwise", "one slope per block of parameters", _ZO, "blocks", lr=1e-2),
    _zeroth(
        "ForwardGradient", "zo:forward_gradient", "exact slope by forward-mode differentiation", _ZO, "model", lr=1e-2
    ),
)
