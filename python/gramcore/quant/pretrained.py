"""Quantised models in folders of ``save_pretrained``: the quantiser that transformers calls.

Importing this module registers ``quant_method: gramcore``; ``from_pretrained`` knows such folders from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from gramcore._checks import check_choice
from gramcore.errors import FormatError
from gramcore.quant.base import ACTIVATIONS
from gramcore.quant.files import packed_state, put_layers, read_tensors
from gramcore.quant.modules import QuantEmbedding, QuantLinear, quantize_

__all__ = ["GramcoreConfig", "GramcoreQuantizer", "load_pretrained", "mark"]

_METHOD, _VERSION = "gramcore", "1"


@register_quantization_config(_METHOD)
class GramcoreConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """How a transformers model is, or is to be, quantised: the ``quantization_config`` of ``from_pretrained``.

    Args:
        scheme: name of a scheme that needs no calibration, see :func:`gramcore.quant.scheme_names`; calibrated ones
            are for :func:`gramcore.quant.quantize_`.
        skip: names of layers to leave alone, as for :func:`gramcore.quant.quantize_`.
        activations: ``"int8"`` or ``"float32"``, see :func:`gramcore.quant.linear`.
        layers, shared, version: of a saved model; written by ``save_pretrained``.

    Raises:
        ValueError: ``activations`` is neither, or a version this release does not read.

    Example:
        >>> from gramcore.quant import GramcoreConfig
        >>> GramcoreConfig("int4_g32").to_dict()["quant_method"]
        'gramcore'
    """

    def __init__(
        self,
        scheme: str | None = None,
        *,
        skip: Iterable[str] = ("lm_head",),
        activations: str = "int8",
        layers: Mapping[str, Any] | None = None,
        shared: Mapping[str, str] | None = None,
        version: str = _VERSION,
        quant_method: str = _METHOD,
    ) -> None:
        if version != _VERSION:
            raise ValueError(
                f"version of quantization_config must be {_VERSION}, got {version!r}; save the model again"
            )
        self.quant_method = quant_method  # type: ignore[assignment]
        self.version = version
        self.scheme = scheme
        self.skip = list(skip)
        self.activations = check_choice("activations", activations, ACTIVATIONS)
        self.layers = dict(layers or {})
        self.shared = dict(shared or {})


class _Awaited(nn.Module):
    """Holds the place of a quantised layer until its buffers are read; knows the size they must have."""

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.out_features = getattr(dense, "out_features", None)
        self.in_features = getattr(dense, "in_features", None)


@register_quantizer(_METHOD)
class GramcoreQuantizer(HfQuantizer):  # type: ignore[misc]
    """Quantises a dense model once transformers has loaded it, or puts saved layers back; called by transformers."""

    requires_calibration = False
    quantization_config: GramcoreConfig

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        devices = device_map.values() if isinstance(device_map, Mapping) else [device_map]
        bad = [d for d in devices if d is not None and torch.device(d if d != "auto" else "cpu").type != "cpu"]
        if bad:
            raise ValueError(f"device_map must be the CPU for models quantised by gramcore, got {bad[0]!r}")
        if not self.pre_quantized and self.quantization_config.scheme is None:
            raise ValueError(
                "scheme must be given to quantise a dense model, got None; see gramcore.quant.scheme_names"
            )

    def _process_model_before_weight_loading(self, model: Any, checkpoint_files: Any = None, **kwargs: Any) -> None:
        self._files = [] if checkpoint_files is None else list(checkpoint_files)
        if not self.pre_quantized:
            return
        layers = self.quantization_config.layers
        for name in layers:
            try:
                model.set_submodule(name, _Awaited(model.get_submodule(name)))
            except AttributeError as error:
                raise FormatError(f"quantised layers must be those of this model, got {name!r}") from error
        known = set(model._keys_to_ignore_on_load_unexpected or ())
        model._keys_to_ignore_on_load_unexpected = known | {rf"^{re.escape(name)}\." for name in layers}

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        config = self.quantization_config
        if self.pre_quantized:
            where = Path(self._files[0]).parent if self._files else "model"
            tensors: dict[str, torch.Tensor] = {}
            for file in self._files:
                tensors |= read_tensors(file, config.layers)
            tensors |= {name: tensors[source] for name, source in config.shared.items() if source in tensors}
            put_layers(model, config.layers, tensors, where)
        else:
            assert config.scheme is not None
            quantize_(model, config.scheme, skip=config.skip, activations=config.activations, progress=False)
        return model

    def get_state_dict_and_metadata(
        self, model: Any, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, str]]:
        tensors, layers, shared = packed_state(model)
        self.quantization_config.layers, self.quantization_config.shared = layers, shared
        model.config.quantization_config = self.quantization_config
        return tensors, {}

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        for name, module in list(model.named_modules()):
            if not isinstance(module, (QuantLinear, QuantEmbedding)):
                continue
            weight = nn.Parameter(module.qweight.dequantize().to(dtype or torch.float32))
            dense: nn.Module
            if isinstance(module, QuantLinear):
                dense = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
                dense.register_parameter("bias", module.bias)
            else:
                dense = nn.Embedding(module.num_embeddings, module.embedding_dim, device="meta")
            dense.weight = weight
            model.set_submodule(name, dense.train(module.training))
        return model

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        """Gradients flow through quantised layers to adapters; the layers themselves stay."""
        return True


def mark(model: Any, scheme: str | None = None) -> None:
    """Let ``save_pretrained`` of a quantised transformers model write what ``from_pretrained`` reads.

    :func:`gramcore.quant.quantize_` and :func:`gramcore.model.load` do so.
    """
    config = GramcoreConfig(scheme)  # what its layers are is looked up when it is saved
    model.hf_quantizer = GramcoreQuantizer(config, pre_quantized=True)
    model.config.quantization_config = config
    model.is_quantized, model.quantization_method = True, _METHOD


def load_pretrained(folder: str | Path, **options: Any) -> Any:
    """A causal language model from a folder of ``save_pretrained``, its quantised layers packed as they were saved.

    The same as ``AutoModelForCausalLM.from_pretrained`` once this module is imported; nothing is downloaded.

    Args:
        folder: the folder.
        options: those of ``from_pretrained``.

    Raises:
        FileNotFoundError: no such folder.
        FormatError: layers and tensors of the folder do not fit together.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"folder must hold a saved model, got {str(folder)!r}")
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
