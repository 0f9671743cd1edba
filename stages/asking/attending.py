"""How much each token looks at each in one layer, taken while a model reads.

    A = softmax(q kᵀ / √D)                                       decoder, encoder
    A = softmax(((q + u) kᵀ + (q + v) (W_R R)ᵀ) / √D)             Transformer-XL, of its own segment

of each head, over what its mask and window let it see. Sources: Vaswani et al., Attention Is All You Need (1706.03762),
equation 1; Dai et al., Transformer-XL (1901.02860), section 3.3.
Shapes: T tokens, H heads, G heads of keys, D width of a head, C width of the model, M remembered, S = M + T.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stages.models.decoder import Attend, Block, Decoder
from stages.models.encoder import Encoder
from stages.models.transformer_xl import Layer, TransformerXL, shifted
from stages.store.errors import UserError

MOST_ATTENDED = 512
"""Tokens of a text whose attention is told."""

_hooking = threading.Lock()


def attention_of(
    model: Decoder | Encoder | TransformerXL,
    layer: int,
    read: Callable[[], object],
    documents: Tensor | None = None,
) -> Tensor:
    """What the heads of a layer look at while `read` has the model read one row of tokens: (H, T, T) fp32 on the CPU.

    Layers count from 0; UserError for one that is not there. documents: as for `Decoder.hidden_states`.
    """
    refuse_layer(layer, len(model.blocks))
    seen: list[Tensor] = []

    def watched(attend: Attend) -> Attend:
        def attend_and_keep(at: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            causal, window = not isinstance(model, Encoder), model.config.windows[layer]
            seen.append(weights(q[0], k[0], causal=causal, window=window, documents=documents))
            return attend(at, q, k, v)

        return attend_and_keep

    def hook(block: Block | Layer, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(block, Layer):
            seen.append(relative_weights(block, *given))
            return given
        h_NC, B, attend, *rest = given
        return h_NC, B, watched(attend), *rest

    with _hooking:
        handle = model.blocks[layer].register_forward_pre_hook(hook)
        try:
            read()
        finally:
            handle.remove()
    return seen[0].cpu()


def refuse_layer(layer: int, layers: int) -> None:
    """Raise UserError for a layer, counted from 0, that a model of so many does not have."""
    if not 0 <= layer < layers:
        raise UserError(f"There is no layer {layer + 1}.", f"The model has {layers}.")


def weights(
    q_HTD: Tensor, k_GTD: Tensor, *, causal: bool, window: int | None = None, documents: Tensor | None = None
) -> Tensor:
    """softmax(q kᵀ / √D) in fp32: (H, T, T), rows that look, columns that are looked at; each row sums to 1.

    causal: a token sees itself and what stands before; window: itself and the window − 1 tokens before; documents:
    only tokens between the same two of these bounds.
    """
    H, T, D = q_HTD.shape
    k_HTD = k_GTD.repeat_interleave(H // len(k_GTD), 0)
    scores_HTT = q_HTD.float() @ k_HTD.float().transpose(1, 2) / D**0.5
    places = torch.arange(T, device=q_HTD.device)
    apart = places[:, None] - places
    hidden = (apart < 0) & causal
    if window is not None:
        hidden |= apart >= window
    if documents is not None:
        own = torch.searchsorted(documents, places, right=True)
        hidden |= own[:, None] != own
    return scores_HTT.masked_fill(hidden, -torch.inf).softmax(-1)


def relative_weights(
    layer: Layer, h_1TC: Tensor, memory_1MC: Tensor, sinusoids_SC: Tensor, u_HD: Tensor, v_HD: Tensor
) -> Tensor:
    """What a block of a Transformer-XL looks at in its own segment, without memory: (H, T, T) fp32."""
    T = h_1TC.shape[1]
    q_THD = layer.query_in(h_1TC[0]).view(T, layer.heads, -1)
    k_HTD = layer.keys_in(h_1TC[0]).view(T, 2 * layer.heads, -1).transpose(0, 1)[: layer.heads]
    far_HTD = layer.distance_in(sinusoids_SC).view(len(sinusoids_SC), layer.heads, -1).transpose(0, 1)
    by_key = (q_THD + u_HD).transpose(0, 1) @ k_HTD.transpose(1, 2)
    by_distance = shifted((q_THD + v_HD).transpose(0, 1) @ far_HTD.transpose(1, 2))
    scores_HTT = (by_key + by_distance).float() / q_THD.shape[-1] ** 0.5
    future = torch.ones(T, T, dtype=torch.bool, device=h_1TC.device).triu(1)
    return scores_HTT.masked_fill(future, -torch.inf).softmax(-1)
