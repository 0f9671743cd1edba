"""A decoder laid out for generation: the mathematics of `decoder.py` in fewer operations, over weights ordered once.

A step of generation multiplies a few rows by every matrix of the model. On a CPU it waits for the matrices to arrive
from memory and for PyTorch to start one small operation after the other, so here

- matrices are copied into the order in which oneDNN reads them, where that is faster (measured below), with the
  activation, and the product of a gated mlp, computed while a result is still in a register;
- norms are called without the layers of Python around them, and RMSNorm takes four operations instead of seven;
- a step of one token a row goes without the turning about of axes that longer sequences need;
- where there is a C compiler and it pays, a whole pass is one call of compiled code (`compiled.py`);
- the cache of such a model is fp32 whatever its weights, because small products of bf16 take twice the time;
- low-rank adapters are merged into the weights.

Shapes as in `decoder.py`: N rows, I inputs, O outputs, V vocabulary, C width; B sequences, H query heads, G heads of
keys and values, D width of a head.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import attention_decode
from stages.models.cache import KVCache
from stages.models.compiled import LONGEST, compiled
from stages.models.decoder import ACTIVATIONS, Block, Decoder, Linear
from stages.models.rotary import Turn, rotate, rotate_in_place

FUSED = {
    "gelu_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
    "": ("none", ""),
}
"""Our activations ("" for none) as oneDNN's operation names them: kind and variant."""

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)

MOST_COPIED = 1 << 30
"""Bytes of weights beyond which a model is not copied: it would no longer be small beside the rest."""

HIDDEN_BYTES = 1 << 20
"""An fp32 matrix of this size comes from memory at every step; smaller ones stay near a core, where the plain product
is as fast or faster (Zen 4, 32 rows: 128 x 512 50 against 52 us, 512 x 3,584 1,600 against 1,050)."""

FEW_ROWS, MANY_ROWS = 4, 256
"""From how many rows on the copied matrix is faster in fp32: a large one (512 x 3,584: 1,138 against 841 us with one
row, 527 against 997 with four), and a small one followed by an activation (1,024 rows of 128 x 512 and GELU: 2,251
against 1,592 us)."""


class InferenceDecoder(Decoder):
    """Shares the model's weights, or holds copies of them: they must not change while this is in use.

    It gives the model's logits but for rounding, always without dropout, whatever mode the model is in.
    """

    def __init__(self, model: Decoder) -> None:
        with torch.device("meta"):
            super().__init__(model.config)
        self.tokens, self.positions, self.head = model.tokens, model.positions, model.head
        self.rotary = model.rotary
        self._compiled = compiled(model)
        copied = copies(model) and self._compiled is None
        self._fp32_cache = copied or self._compiled is not None
        if model.final_norm is not None:
            _replace(self, "final_norm", lean_norm(model.final_norm))
        for own, block in zip(self.blocks, model.blocks, strict=True):
            assert isinstance(own, Block) and isinstance(block, Block)
            _lay_out(own, block, model.config.activation, copied)
        head_CV = model.head_weight.detach().t()
        self._logits = Matrix(head_CV, None, "", copied)
        self.eval()

    @property
    def compiled(self) -> bool:
        """Whether compiled code computes its passes."""
        return self._compiled is not None

    def logits(self, h_NC: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, C)."""
        return self._logits(h_NC)

    def new_cache(self, rows: int, length: int) -> KVCache:
        """An empty cache of so many rows with room for `length` tokens each."""
        c = self.config
        like = torch.empty(0, dtype=torch.float32) if self._fp32_cache else self.tokens
        return KVCache(c.layers, rows, c.key_heads, length, c.head_width, like)

    @torch.inference_mode()
    def prefill_rows(self, tokens_BT: Tensor, lengths_B: Tensor, cache: KVCache, rows_B: Tensor) -> None:
        """As `Decoder.prefill_rows`, by compiled code where there is some."""
        if self._compiled is not None and tokens_BT.shape[1] <= LONGEST:
            self._compiled.prefill_rows(tokens_BT, lengths_B, cache, rows_B)
        else:
            super().prefill_rows(tokens_BT, lengths_B, cache, rows_B)

    @torch.inference_mode()
    def decode(self, tokens_B: Tensor, cache: KVCache) -> Tensor:
        """As `Decoder.decode`: logits (B, V) after one more token (B,) in each of the first B rows."""
        if self._compiled is not None:
            return self._compiled.decode(tokens_B, cache)
        B = len(tokens_B)
        positions_B = cache.lengths[:B]
        places, lengths = cache.places(positions_B), positions_B + 1
        turn = None if self.rotary is None else self.rotary.at(positions_B[:, None], cache.room, cache.k)
        h_BC = self._embed(tokens_B, positions_B)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)

            def attend(q_BHD: Tensor, kv_BGD: Tensor, layer: int = layer) -> Tensor:
                cache.append(layer, places, kv_BGD)
                return attention_decode(q_BHD, *cache.layer(layer, B), lengths, window=self.windows[layer])

            h_BC = _step(block, h_BC, attend, turn, cache.dtype)
        cache.lengths[:B] = lengths
        return self.logits(h_BC if self.final_norm is None else self.final_norm(h_BC))


def _step(
    block: Block, h_BC: Tensor, attend: Callable[[Tensor, Tensor], Tensor], turn: Turn | None, dtype: torch.dtype
) -> Tensor:
    """`Block.forward` for one token a row. attend: (q (B, H, D), keys and values (B, 2 G, D)) in dtype to (B, H, D)."""
    if block.pre_norm:
        h_BC = _attention(block, block.norm_1(h_BC), attend, turn, dtype).add_(h_BC)
        return block._mlp(block.norm_2(h_BC)).add_(h_BC)
    h_BC = block.norm_1(_attention(block, h_BC, attend, turn, dtype).add_(h_BC))
    return block.norm_2(block._mlp(h_BC).add_(h_BC))


def _attention(
    block: Block, x_BC: Tensor, attend: Callable[[Tensor, Tensor], Tensor], turn: Turn | None, dtype: torch.dtype
) -> Tensor:
    B, H, G = len(x_BC), block.heads, block.key_heads
    heads_BHD = block.attention_in(x_BC).view(B, H + 2 * G, block.head_width)
    if block.q_norm is not None and block.k_norm is not None:
        q_BHD, k_BGD = heads_BHD[:, :H], heads_BHD[:, H : H + G]
        q_BHD[:], k_BGD[:] = block.q_norm(q_BHD), block.k_norm(k_BGD)
    heads_BHD = heads_BHD.to(dtype)
    if turn is not None and dtype == torch.float32 and heads_BHD.device.type == "cpu":
        rotate_in_place(heads_BHD.numpy()[:, : H + G], turn)
    elif turn is not None:
        heads_BHD[:, : H + G] = rotate(heads_BHD[:, None, : H + G], turn)[:, 0]
    y_BHD = attend(heads_BHD[:, :H], heads_BHD[:, H:])
    return block.attention_out(y_BHD.view(B, -1).to(x_BC.dtype))


def copies(model: Decoder) -> bool:
    """Whether matrices may be laid out anew for this model on this machine."""
    weight = model.tokens
    if weight.device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64") or not _available():
        return False
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return sum(p.numel() for p in model.parameters()) * weight.element_size() <= MOST_COPIED


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Matrix:
    """activation(x W + b) for x (N, I), by whichever product is faster for so many rows. W turned may be given."""

    def __init__(
        self, weight_IO: Tensor, bias_O: Tensor | None, activation: str, copied: bool, weight_OI: Tensor | None = None
    ) -> None:
        self.weight, self.bias = weight_IO, bias_O
        self._activation = _lean_activation(activation, weight_IO) if activation else None
        self.kind, self.variant = FUSED[activation]
        self.rows = _least_rows(weight_IO, bool(activation)) if copied else None
        self.packed = None
        if self.rows is not None:
            weight_OI = weight_IO.t().contiguous() if weight_OI is None else weight_OI
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)

    def __call__(self, x_NI: Tensor) -> Tensor:
        if self.rows is not None and len(x_NI) >= self.rows:
            return torch.ops.mkldnn._linear_pointwise(x_NI, self.packed, self.bias, self.kind, [], self.variant)
        y_NO = torch.mm(x_NI, self.weight) if self.bias is None else torch.addmm(self.bias, x_NI, self.weight)
        return y_NO if self._activation is None else self._activation(y_NO)


def _lean_activation(name: str, like: Tensor) -> Callable[[Tensor], Tensor]:
    """What the activation computes, for values that nobody else needs."""
    lean = name == "gelu_tanh" and like.device.type == "cpu" and like.dtype == torch.float32
    return _gelu_tanh if lean else ACTIVATIONS[name]


def _gelu_tanh(x: Tensor) -> Tensor:
    """x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³))) by numpy, whose tanh takes a quarter of the time of torch's."""
    values = x.numpy()
    y = np.square(values)
    y *= SQRT_2_OVER_PI * 0.044715
    y += SQRT_2_OVER_PI
    y *= values
    np.tanh(y, out=y)
    y += 1
    y *= values
    y *= 0.5
    return torch.from_numpy(y)


class Gated:
    """activation(x W_gate + b_gate) ⊙ (x W_up + b_up), where gate and up lie side by side in one large matrix."""

    def __init__(self, weight_IO: Tensor, bias_O: Tensor | None, activation: str) -> None:
        gate, up = weight_IO.chunk(2, 1)
        gate_OI, up_OI = weight_IO.t().contiguous().chunk(2)  # each half alone takes as long as the whole
        gate_bias, up_bias = (None, None) if bias_O is None else bias_O.chunk(2)
        self._gate = Matrix(gate, gate_bias, activation, True, gate_OI)
        self._up = Matrix(up, up_bias, "", True, up_OI)

    def __call__(self, x_NI: Tensor) -> Tensor:
        gate, up = self._gate(x_NI), self._up
        if up.rows is not None and len(x_NI) >= up.rows:
            return torch.ops.mkldnn._linear_pointwise.binary(x_NI, gate, up.packed, up.bias, "mul")
        return gate * up(x_NI)


def _least_rows(weight: Tensor, activated: bool) -> int | None:
    """From how many rows on a copied matrix is worth it; None: never."""
    if weight.dtype == torch.bfloat16:
        return 0
    if weight.numel() * weight.element_size() >= HIDDEN_BYTES:
        return FEW_ROWS
    return MANY_ROWS if activated else None


def _lay_out(own: Block, block: Block, activation: str, copied: bool) -> None:
    """Give a block that has no weights yet those of another."""
    for name in ("norm_1", "norm_2", "q_norm", "k_norm"):
        if getattr(block, name) is not None:
            _replace(own, name, lean_norm(getattr(block, name)))
    for name in ("attention_in", "attention_out", "mlp_out"):
        _replace(own, name, Matrix(*_weights(getattr(block, name)), "", copied))
    weight, bias = _weights(block.mlp_in)
    if not block.gated:
        _replace(own, "mlp_in", Matrix(weight, bias, activation, copied))
        own.activation = _same
    elif copied and _least_rows(weight[:, ::2], False) is not None:
        _replace(own, "mlp_in", Gated(weight, bias, activation))
        own.gated, own.activation = False, _same
    else:
        _replace(own, "mlp_in", Matrix(weight, bias, "", copied))


def _weights(linear: Linear) -> tuple[Tensor, Tensor | None]:
    weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    return (weight if linear.lora is None else linear.lora.added_to(weight).detach()), bias


def lean_norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """What the norm computes over the last dimension, in fewer steps."""
    if isinstance(norm, nn.LayerNorm):
        shape, eps = norm.normalized_shape, norm.eps
        weight, bias = norm.weight.detach(), None if norm.bias is None else norm.bias.detach()
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps, False)
    assert isinstance(norm, nn.RMSNorm) and norm.weight is not None and norm.eps is not None
    if norm.weight.device.type != "cpu":
        weight = norm.weight.detach()
        return lambda x: functional.rms_norm(x, norm.normalized_shape, weight, norm.eps)
    return _rms_norm(norm.weight.detach(), norm.eps)


def _rms_norm(weight_C: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """x g / √(mean x² + ε) as x / √(|x|² + C ε) · √C g: the root of a sum of squares is one operation, `hypot`."""
    C, dtype = len(weight_C), weight_C.dtype
    scaled_C, floor = weight_C.float() * math.sqrt(C), torch.tensor(math.sqrt(C * eps), device=weight_C.device)

    def norm(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        y = (x / length.hypot_(floor)).mul_(scaled_C)
        return y if dtype == torch.float32 else y.to(dtype)

    return norm


def _same(x: Tensor) -> Tensor:
    return x


def _replace(module: nn.Module, name: str, function: Callable[[Tensor], Tensor]) -> None:
    """Let a plain function stand where a module was: a call of it costs less."""
    delattr(module, name)
    setattr(module, name, function)
