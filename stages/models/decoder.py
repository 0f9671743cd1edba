"""The decoder: one forward pass that is GPT-1, GPT-2, Llama, Mistral, Qwen2 or Qwen3 by its configuration alone.

Shapes: B batch, T tokens, C width, F feed-forward width, V vocabulary, H query heads, G heads of keys and values,
D width of a head, N = B·T.

    pre-norm   h ← h + attention(norm(h));  h ← h + mlp(norm(h));  one more norm at the end     (Radford et al. 2019)
    post-norm  h ← norm(h + attention(h));  h ← norm(h + mlp(h))                                (Radford et al. 2018)
    gated mlp  (act(x W_gate) ⊙ x W_up) W_down                                        (Shazeer 2020, arXiv 2002.05202)

Weights of linear layers are stored (inputs, outputs), and those that read the same input lie side by side: queries,
keys and values are one addmm, gate and up another. `stages.models.names` says what published files call the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kernels import attention, attention_decode, attention_packed, linear_cross_entropy, swiglu
from stages.models.cache import KVCache
from stages.models.lora_layer import Lora
from stages.models.loss import IGNORED
from stages.models.rotary import Rotary, Turn, rotate
from stages.store.architecture import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
}

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: (layer, q (B, H, T, D), k (B, G, T, D), v) -> (B, H, T, D). It may keep keys and values."""


class Linear(nn.Module):
    """x W + b for x (N, inputs), and what low-rank adapters add (`stages.models.lora`)."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.lora: Lora | None = None

    def forward(self, x_NI: Tensor) -> Tensor:
        y_NO = x_NI @ self.weight if self.bias is None else torch.addmm(self.bias, x_NI, self.weight)
        return y_NO if self.lora is None else self.lora(x_NI, y_NO)


def new_norm(config: ModelConfig, width: int | None = None) -> nn.Module:
    """A norm of the configured kind over the model's width, or over another."""
    if config.norm_kind == "rms":
        return nn.RMSNorm(width or config.width, config.norm_eps)
    return nn.LayerNorm(width or config.width, config.norm_eps, bias=config.bias)


class Block(nn.Module):
    """One transformer block on h (B·T, C)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        C, D, inner, bias = config.width, config.head_width, config.inner_width, config.biases
        self.layer, self.pre_norm, self.dropout = layer, config.norm == "pre", config.dropout
        self.heads, self.key_heads, self.head_width = config.heads, config.key_heads, D
        self.activation, self.gated = ACTIVATIONS[config.activation], config.gated
        self.norm_1 = new_norm(config)
        self.attention_in = Linear(C, (config.heads + 2 * config.key_heads) * D, bias.qkv)
        self.q_norm = new_norm(config, D) if config.qk_norm else None
        self.k_norm = new_norm(config, D) if config.qk_norm else None
        self.attention_out = Linear(config.heads * D, C, bias.out)
        self.norm_2 = new_norm(config)
        self.mlp_in = Linear(C, 2 * inner if config.gated else inner, bias.mlp)
        self.mlp_out = Linear(inner, C, bias.mlp)

    def forward(
        self, h_NC: Tensor, B: int, attend: Attend, turn: Turn | None, places_M: Tensor | None = None
    ) -> Tensor:
        """h after this block (N, C); at places (M,) alone (M, C), if they are given: the other tokens are only seen."""
        kept = h_NC if places_M is None else h_NC.index_select(0, places_M)
        if self.pre_norm:
            h_MC = kept + self._attention(self.norm_1(h_NC), B, attend, turn, places_M)
            return h_MC + self._mlp(self.norm_2(h_MC))
        h_MC = self.norm_1(kept + self._attention(h_NC, B, attend, turn, places_M))
        return self.norm_2(h_MC + self._mlp(h_MC))

    def keys_and_values(self, h_NC: Tensor, B: int, turn: Turn | None) -> tuple[Tensor, Tensor]:
        """What later tokens see of these in this block: keys and values (B, G, T, D), of which it computes no more."""
        _, k, v = self._heads(self.norm_1(h_NC) if self.pre_norm else h_NC, B, turn)
        return k.transpose(1, 2), v.transpose(1, 2)

    def _attention(self, x_NC: Tensor, B: int, attend: Attend, turn: Turn | None, places_M: Tensor | None) -> Tensor:
        q, k, v = self._heads(x_NC, B, turn)
        y_BHTD = attend(self.layer, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        y_NI = y_BHTD.transpose(1, 2).reshape(len(x_NC), -1)
        return self._drop(self.attention_out(y_NI if places_M is None else y_NI.index_select(0, places_M)))

    def _heads(self, x_NC: Tensor, B: int, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, H, D), keys and values (B, T, G, D), turned to their positions."""
        N, H, G = len(x_NC), self.heads, self.key_heads
        heads = self.attention_in(x_NC).view(B, N // B, H + 2 * G, self.head_width)
        if self.q_norm is not None and self.k_norm is not None:
            q, k, v = heads.split((H, G, G), 2)
            q, k = self.q_norm(q), self.k_norm(k)
            if turn is not None:
                q, k = rotate(q, turn), rotate(k, turn)
        elif turn is not None:
            qk, v = heads.split((H + G, G), 2)
            q, k = rotate(qk, turn).split((H, G), 2)
        else:
            q, k, v = heads.split((H, G, G), 2)
        return q, k, v

    def _mlp(self, x_NC: Tensor) -> Tensor:
        inner = self.mlp_in(x_NC)
        if self.gated and self.activation is functional.silu:
            inner = swiglu(inner)
        elif self.gated:
            gate, up = inner.chunk(2, -1)
            inner = self.activation(gate) * up
        else:
            inner = self.activation(inner)
        return self._drop(self.mlp_out(inner))

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


class Decoder(nn.Module):
    """A language model: token ids to logits over the next token.

    Parameters are uninitialised until `initialise` or a loader fills them. With `checkpointing` a training step keeps
    only the input of each block and computes the rest again in the backward pass: less memory, a third more work.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        learned = config.positions == "learned"
        self.tokens = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.positions = nn.Parameter(torch.empty(config.context, config.width)) if learned else None
        self.rotary = None if learned else Rotary(config.rope, config.head_width)
        self.windows = config.windows
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.final_norm = new_norm(config) if config.norm == "pre" else None
        self.head = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.width))

    @property
    def head_weight(self) -> Tensor:
        """(V, C): the output layer, which is the token embedding when tied."""
        return self.tokens if self.head is None else self.head

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        documents: Tensor | None = None,
        *,
        z_loss: float = 0.0,
    ) -> Tensor:
        """Logits (B, T, V); or, given targets (-100 is ignored), their mean cross-entropy in nats, a fp32 scalar.

        `documents`: as for `hidden_states`. z_loss: weight of log² Z beside each target's −log p (`stages.pretrain`).
        """
        h_NC = self.hidden_states(tokens_BT, documents)
        if targets_BT is not None:
            targets_N = targets_BT.reshape(-1)
            return linear_cross_entropy(h_NC, self.head_weight, targets_N, ignored=IGNORED, z_loss=z_loss)
        return self.logits(h_NC).view(*tokens_BT.shape, -1)

    def logits(self, h_NC: Tensor) -> Tensor:
        """(N, V): the output layer on hidden states (N, C)."""
        return functional.linear(h_NC, self.head_weight)

    def hidden_states(
        self, tokens_BT: Tensor, documents: Tensor | None = None, places_M: Tensor | None = None
    ) -> Tensor:
        """(B·T, C): what the output layer reads; or, given places among the B·T tokens, for these alone (M, C).

        The last block then computes no more than these, which is much of a model of few layers.

        documents: rising integers from 0 (documents + 1,), on the model's device: the batch is one row (1, T) in which
        document i is tokens documents[i] to documents[i + 1]. No token sees another document, and positions restart in
        each; what follows the last document is padding. Attention weights are not dropped then. Raises ValueError when
        a sequence exceeds the context.
        """
        B, T = tokens_BT.shape
        if documents is None:
            self._check_length(T)
            h_BTC, turn = self._embed(tokens_BT, slice(0, T)), self._turn(slice(0, T), T)
            return self._blocks(h_BTC, B, self._attend, turn, places_M)
        if B != 1:
            raise ValueError(f"packed documents lie in one row, not {B}")
        longest = int(documents.diff().max())
        self._check_length(longest)
        positions_T = document_positions(documents, T).clamp(max=max(longest - 1, 0))
        h_1TC = self._embed(tokens_BT, positions_T)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q_THD, k_TGD, v_TGD = (x[0].transpose(0, 1) for x in (q, k, v))
            y_THD = attention_packed(q_THD, k_TGD, v_TGD, documents, causal=True, window=self.windows[layer])
            return y_THD.transpose(0, 1)[None]

        return self._blocks(h_1TC, 1, attend, self._turn(positions_T, longest), places_M)

    def hidden_states_after(
        self,
        prompts_KP: Tensor,
        lengths_K: Tensor,
        which_B: Tensor,
        said_BS: Tensor,
        places_M: Tensor | None = None,
        *,
        even: bool,
    ) -> Tensor:
        """(K·P + B·S, C): hidden states of prompts, each read once, and then of what was said after them.

        Or, given places among these, for those alone (M, C).

        Row b of `said_BS` follows the first lengths_K tokens of prompt which_B[b]; what pads it or a prompt stands
        behind. even: all prompts have P tokens. For models without windows, whose weights are not dropped.
        """
        (K, P), (B, S) = prompts_KP.shape, said_BS.shape
        self._check_length(P + S)
        ahead_S, places_P = (torch.arange(length, device=said_BS.device) for length in (S, P))
        starts_B1 = lengths_K[which_B][:, None]
        positions_N = torch.cat((places_P.repeat(K), (starts_B1 + ahead_S).reshape(-1)))
        h_1NC = self._embed(torch.cat((prompts_KP.reshape(-1), said_BS.reshape(-1)))[None], positions_N)
        bias = None
        if not even:
            unseen_BSR = torch.cat(
                ((places_P >= starts_B1)[:, None].expand(B, S, P), (ahead_S > ahead_S[:, None]).expand(B, S, S)), 2
            )
            bias = h_1NC.new_zeros(B, 1, S, P + S).masked_fill(unseen_BSR[:, None], float("-inf"))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            (q_p, q_s), (k_p, k_s), (v_p, v_s) = (_parted(x[0], (K, P), (B, S)) for x in (q, k, v))
            y_p = attention(q_p, k_p, v_p, causal=True)
            k_r, v_r = (torch.cat((p.index_select(0, which_B), s), 2) for p, s in ((k_p, k_s), (v_p, v_s)))
            y_s = attention(q_s, k_r, v_r, causal=even, bias=bias)
            return torch.cat([y.transpose(0, 1).flatten(1, 2) for y in (y_p, y_s)], 1)[None]

        return self._blocks(h_1NC, 1, attend, self._turn(positions_N, P + S), places_M)

    def new_cache(self, rows: int, length: int) -> KVCache:
        """An empty cache for `rows` sequences of up to `length` tokens, on the model's device, in its dtype."""
        c = self.config
        return KVCache(c.layers, rows, c.key_heads, length, c.head_width, self.tokens)

    @torch.inference_mode()
    def prefill(self, tokens_T: Tensor, cache: KVCache, row: int) -> Tensor:
        """Append tokens to one row of the cache and return the logits (V,) after the last of them."""
        T, start = len(tokens_T), int(cache.lengths[row])
        end = start + T

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k_cache, v_cache = (held[row : row + 1, :, :end] for held in cache.layer(layer))
            k_cache[:, :, start:], v_cache[:, :, start:] = k, v
            return attention(q, k_cache, v_cache, causal=True, window=self.windows[layer])

        positions = slice(start, end)
        h_NC = self._blocks(self._embed(tokens_T[None], positions), 1, attend, self._turn(positions, end))
        cache.lengths[row] = end
        return self.logits(h_NC[-1:])[0]

    @torch.inference_mode()
    def prefill_rows(self, tokens_BT: Tensor, lengths_B: Tensor, cache: KVCache, rows_B: Tensor) -> None:
        """Start these rows of the cache anew with a prompt each, of which the first lengths_B tokens count.

        The rest is padding: causal attention keeps it from what counts, and what follows in the row overwrites it.
        """
        B, T = tokens_BT.shape
        turn = self._turn(slice(0, T), T)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, rows_B, k, v)
            return attention(q, k, v, causal=True, window=self.windows[layer])

        h_NC = self._embed(tokens_BT, slice(0, T)).reshape(B * T, -1)
        *blocks, last = self.blocks
        for block in blocks:
            h_NC = block(h_NC, B, attend, turn)
        assert isinstance(last, Block)
        cache.write(last.layer, rows_B, *last.keys_and_values(h_NC, B, turn))  # nothing else comes of the last block
        cache.lengths[rows_B] = lengths_B

    @torch.inference_mode()
    def decode(self, tokens_B: Tensor, cache: KVCache) -> Tensor:
        """Append one token to each of the cache's first B rows and return the logits (B, V) after them."""
        B = len(tokens_B)
        positions = cache.lengths[:B, None]
        places, lengths = cache.places(cache.lengths[:B]), cache.lengths[:B] + 1

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.append(layer, places, torch.cat((k, v), 1))
            k_cache, v_cache = (held[:B] for held in cache.layer(layer))
            y_BHD = attention_decode(q[:, :, 0], k_cache, v_cache, lengths, window=self.windows[layer])
            return y_BHD[:, :, None]

        h_NC = self._blocks(self._embed(tokens_B[:, None], positions), B, attend, self._turn(positions, cache.room))
        cache.lengths[:B] = lengths
        return self.logits(h_NC)

    def _check_length(self, length: int) -> None:
        if (context := self.config.context) < length:
            raise ValueError(f"{length} tokens do not fit the model's context of {context}")

    def _embed(self, tokens: Tensor, positions: slice | Tensor) -> Tensor:
        h = functional.embedding(tokens, self.tokens)
        if self.positions is None:
            return h
        if isinstance(positions, slice):
            return h + self.positions[positions]
        return h + functional.embedding(positions, self.positions)

    def _turn(self, positions: slice | Tensor, end: int) -> Turn | None:
        return None if self.rotary is None else self.rotary.at(positions, end, self.tokens)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout = self.config.dropout if self.training else 0.0
        return attention(q, k, v, causal=True, window=self.windows[layer], dropout=dropout)

    def _blocks(
        self, h_BTC: Tensor, B: int, attend: Attend, turn: Turn | None, places_M: Tensor | None = None
    ) -> Tensor:
        h_NC = h_BTC.reshape(-1, self.config.width)
        if self.config.dropout:
            h_NC = functional.dropout(h_NC, self.config.dropout, self.training)
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks, 1):
            wanted = places_M if number == len(self.blocks) else None
            if again:
                h_NC = checkpoint(block, h_NC, B, attend, turn, wanted, use_reentrant=False)
            else:
                h_NC = block(h_NC, B, attend, turn, wanted)
        return h_NC if self.final_norm is None else self.final_norm(h_NC)


def _parted(x_HND: Tensor, *shapes: tuple[int, int]) -> list[Tensor]:
    """(B, H, T, D) for each of the shapes (B, T) that lie end to end."""
    parts = x_HND.split([B * T for B, T in shapes], 1)
    return [part.unflatten(1, shape).transpose(0, 1) for part, shape in zip(parts, shapes, strict=True)]


def document_positions(documents: Tensor, length: int) -> Tensor:
    """Each token's place in its document (length,), for documents laid end to end; 0 and on behind the last."""
    places_T = torch.arange(length, device=documents.device)
    starts_T = documents[torch.bucketize(places_T, documents, right=True) - 1]
    return places_T - starts_T


def initialise(model: Decoder, generator: torch.Generator) -> Decoder:
    """GPT-2's start: weights N(0, 0.02), those that write to the residual stream N(0, 0.02 / √(2 · layers)), biases 0.

    Numbers are drawn in fp32 on the generator's device in a fixed order, so that one seed gives the same bits in any
    dtype and on any device of the model. Returns the model.
    """
    residual_std = 0.02 / math.sqrt(2 * model.config.layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                std = residual_std if name.endswith(("attention_out.weight", "mlp_out.weight")) else 0.02
                fresh = torch.empty(parameter.shape, device=generator.device).normal_(0.0, std, generator=generator)
                parameter.copy_(fresh)
    return model


def new_decoder(
    config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Decoder:
    """A freshly initialised decoder. The same seed gives the same bits."""
    with torch.device("meta"):
        model = Decoder(config)
    model = model.to(dtype).to_empty(device=device)
    return initialise(model, torch.Generator().manual_seed(seed))
