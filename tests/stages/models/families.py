"""Small models of every family, made by transformers with random weights large enough that a mistake shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

SHAPE = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 44,
    "vocab_size": 61,
    "max_position_embeddings": 96,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 24}
YARN = {"factor": 4.0, "original_max_position_embeddings": 24}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 96, "vocab_size": 61}),
    "gpt1": ("OpenAIGPT", {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 96, "vocab_size": 61}),
    "llama": ("Llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500_000.0} | LLAMA3}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama, linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}}),
    "llama, dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}}),
    "smollm": ("Llama", {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "mistral, whole": ("Mistral", {"sliding_window": None, "head_dim": 12}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2, windowed": ("Qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}),
    "qwen3": ("Qwen3", {"head_dim": 12, "tie_word_embeddings": True}),
    "qwen3, yarn": (
        "Qwen3",
        {"head_dim": 16, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1_000_000.0} | YARN},
    ),
    "qwen3, windowed": (
        "Qwen3",
        {
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
NAMES = list(FAMILIES)
DISTINCT = ["gpt2", "gpt1", "llama", "smollm", "mistral", "qwen2, windowed", "qwen3, yarn"]
"""A few that have every feature between them, for what takes longer."""


def theirs(name: str, **changes: Any) -> PreTrainedModel:
    """A model of transformers in evaluation mode, in fp32."""
    kind, values = FAMILIES[name]
    head = "LMHeadModel" if "GPT" in kind else "ForCausalLM"
    shape: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None} if "GPT" in kind else SHAPE
    config = getattr(transformers, f"{kind}Config")(**(shape | values | changes))
    torch.manual_seed(0)
    model = getattr(transformers, kind + head)(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.15)
    return model


def saved(name: str, folder: Path, **changes: Any) -> PreTrainedModel:
    """The same, saved in `folder`."""
    model = theirs(name, **changes)
    model.save_pretrained(folder)
    return model


def opened(folder: Path) -> PreTrainedModel:
    """What transformers makes of a folder."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def tokens(rows: int, length: int, vocabulary: int = 61, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
