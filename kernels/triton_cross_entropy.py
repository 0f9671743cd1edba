"""Linear + cross-entropy in Triton: tiles of logits are made, used and forgotten on the chip.

Shapes: N tokens, C width, V vocabulary. A program holds a tile of BLOCK_M tokens by BLOCK_N words of logits, the sum
over C of products of BLOCK_C columns. The reduction over the vocabulary is the online softmax of attention (Milakov and
Gimelshein 2018, arXiv 1805.02867); that the logits need not be kept, Wijmans et al. 2024 (arXiv 2411.09009).

    forward      for each tile of words:  s = h Wᵀ,  m' = max(m, rowmax s),  ell' = ell e^(m - m') + rowsum e^(s - m')
                 lse = m + log ell,  loss = lse - s_target + z · lse²
    backward     dlogits = g (e^(s - lse) (1 + 2 z · lse) - onehot(target)),  dh = dlogits W,  dW = dlogitsᵀ h

The forward cuts the vocabulary into parts of TILES tiles, so that few tokens fill a chip, and keeps one log-sum-exp a
part and token. The backward takes AT_ONCE bytes of dlogits at a time, all tokens by some words: these words' dW is then
complete and rounded once, and dh, the smaller of the two, is what adds up. The two products of a part are plain matrix
products, left to PyTorch; no sum depends on the order of programs, so equal inputs give equal bits.

Counted, for a token and a word of the vocabulary in bf16: 4 products of C, where PyTorch on whole logits takes 3, and 6
bytes of memory traffic (dlogits written once and read twice) where that takes 42 (logits written in bf16, read and
written in fp32, read and written by log-softmax; a gradient of zeros written, read with the log-softmax and written;
read, written in bf16, read twice). At C = 768 an H100's 790 TFLOP/s and 3.35 TB/s make that 7.8 + 1.8 ps against
5.8 + 12.5 ps.

A tile of tokens that are all ignored costs nothing.
"""

# mypy: disable-error-code="no-untyped-def"
# A kernel's parameters are values of the GPU, which Python's types do not name.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import configs
from kernels.choice import Served, guarded
from kernels.triton_backend import refusal as attention_refusal

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
TILES = 8
"""Tiles of words for one program of the forward kernel: 1/1024 of the logits is what it writes."""
AT_ONCE = 2**28
"""Bytes of dlogits at a time. A part's dh is added to the sum in fp32, N x C x 8 bytes for N x C x words x 2 operations
with 2,700 words or more: some 2 % of the time."""


@triton.jit
def _logits(HIDDEN, WEIGHT, rows, words, C, h_n, w_v, needed, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
            BLOCK_C: tl.constexpr, EVEN_C: tl.constexpr):  # fmt: skip
    """s = h Wᵀ of one tile, (BLOCK_M, BLOCK_N) in fp32; 0 where it is not needed. `rows`, `words`: int64, in bounds."""
    column = tl.arange(0, BLOCK_C)
    h_places = HIDDEN + rows[:, None] * h_n + column[None, :]
    w_places = WEIGHT + words[:, None] * w_v + column[None, :]
    s = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for c in range(0, tl.where(needed, C, 0), BLOCK_C):
        if EVEN_C:
            h, w = tl.load(h_places + c), tl.load(w_places + c)
        else:
            inside = (c + column < C)[None, :]
            h, w = tl.load(h_places + c, mask=inside, other=0.0), tl.load(w_places + c, mask=inside, other=0.0)
        s = tl.dot(h, tl.trans(w), s, input_precision="ieee")
    return s


@triton.jit
def loss_forward(
    HIDDEN, WEIGHT, TARGETS, PARTS, PICKED, h_n, w_v, N, vocabulary, C, tiles, ignored,
    TILES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, EVEN_C: tl.constexpr,
):  # fmt: skip
    """PARTS (parts, N): log-sum-exp of one part of the vocabulary; PICKED (N,): the target's logit, if it is in it."""
    pid = tl.program_id(0)
    row = pid % tiles * BLOCK_M + tl.arange(0, BLOCK_M)  # programs side by side share a part of WEIGHT in the cache
    part = pid // tiles
    target = tl.load(TARGETS + row, mask=row < N, other=ignored)
    counts = target != ignored
    needed = tl.max(counts.to(tl.int32), 0) > 0
    rows = tl.minimum(row, N - 1).to(tl.int64)
    first = part * TILES * BLOCK_N
    last = tl.minimum(first + TILES * BLOCK_N, vocabulary)
    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    ell = tl.zeros([BLOCK_M], tl.float32)
    picked = tl.zeros([BLOCK_M], tl.float32)
    for start in range(first, tl.where(needed, last, first), BLOCK_N):
        word = start + tl.arange(0, BLOCK_N)
        words = tl.minimum(word, vocabulary - 1).to(tl.int64)
        s = _logits(HIDDEN, WEIGHT, rows, words, C, h_n, w_v, True, BLOCK_M, BLOCK_N, BLOCK_C, EVEN_C)
        s = tl.where((word < vocabulary)[None, :], s, -float("inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        ell = ell * tl.exp2((m - m_new) * LOG2E) + tl.sum(tl.exp2((s - m_new[:, None]) * LOG2E), 1)
        picked += tl.sum(tl.where(word[None, :] == target[:, None], s, 0.0), 1)
        m = m_new
    tl.store(PARTS + part.to(tl.int64) * N + row, m + tl.log2(ell) * LN2, mask=(row < N) & counts)
    tl.store(PICKED + row, picked, mask=(row < N) & counts & (target >= first) & (target < last))


@triton.jit
def loss_gradient(
    HIDDEN, WEIGHT, TARGETS, LSE, SOFT, HARD, OUT, h_n, w_v, N, count, C, tiles, first,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, EVEN_C: tl.constexpr,
):  # fmt: skip
    """OUT (N, count) = SOFT e^(s - LSE) - HARD onehot(target) for words from `first` on, whose rows are WEIGHT."""
    pid = tl.program_id(0)
    row = pid % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    word = pid // tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = row < N
    target = tl.load(TARGETS + row, mask=inside, other=0)
    lse = tl.load(LSE + row, mask=inside, other=float("inf"))
    soft = tl.load(SOFT + row, mask=inside, other=0.0)
    hard = tl.load(HARD + row, mask=inside, other=0.0)
    needed = tl.max(tl.maximum(tl.abs(soft), tl.abs(hard)), 0) > 0
    rows, words = tl.minimum(row, N - 1).to(tl.int64), tl.minimum(word, count - 1).to(tl.int64)
    s = _logits(HIDDEN, WEIGHT, rows, words, C, h_n, w_v, needed, BLOCK_M, BLOCK_N, BLOCK_C, EVEN_C)
    p = soft[:, None] * tl.exp2((s - lse[:, None]) * LOG2E)
    p -= tl.where((first + word)[None, :] == target[:, None], hard[:, None], 0.0)
    places = OUT + rows[:, None] * count + word[None, :]
    tl.store(places, p.to(OUT.dtype.element_ty), mask=inside[:, None] & (word < count)[None, :])


def refusal(device: torch.device, dtype: torch.dtype) -> str:
    """Why the kernels do not take this dtype on this device; empty when they do."""
    return attention_refusal(device, dtype, 64)


def losses(
    h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, ignored: int, z_loss: float, guard: Served | None = None
) -> Tensor:
    """The losses (N,) in fp32, 0 where ignored. See the door, `kernels.linear_cross_entropy`.

    A target that is no word gives NaN. guard: what to switch off should a kernel of the backward pass fail, PyTorch
    then finding the gradients; when None, it raises what it raises.
    """
    return _Losses.apply(h_NC, weight_VC, targets_N, ignored, z_loss, guard)


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h_NC: Tensor,
        weight_VC: Tensor,
        targets_N: Tensor,
        ignored: int,
        z_loss: float,
        guard: Served | None,
    ) -> Tensor:
        h_NC, weight_VC = (x if x.stride(-1) == 1 else x.contiguous() for x in (h_NC, weight_VC))
        targets_N = targets_N.contiguous()
        ctx.ignored, ctx.z_loss, ctx.guard = ignored, z_loss, guard
        kept_N = targets_N != ignored
        lse_N, picked_N = _forward(h_NC, weight_VC, targets_N, ignored)
        lse_N = lse_N.where(kept_N, float("inf"))  # whence no gradient
        ctx.save_for_backward(h_NC, weight_VC, targets_N, lse_N)
        return (lse_N - picked_N + z_loss * lse_N**2).where(kept_N, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_N: Tensor) -> tuple[Tensor | None, ...]:
        h_NC, weight_VC, targets_N, lse_N = ctx.saved_tensors
        of_h, of_weight = ctx.needs_input_grad[:2]

        def ours() -> tuple[Tensor | None, ...]:
            return _backward(h_NC, weight_VC, targets_N, lse_N, ctx.z_loss, upstream_N, of_h, of_weight)

        def pytorch() -> tuple[Tensor | None, ...]:
            return _gradients_by_pytorch(
                h_NC, weight_VC, targets_N, ctx.ignored, ctx.z_loss, upstream_N, of_h, of_weight
            )

        gradients = ours() if ctx.guard is None else guarded(ctx.guard, ours, pytorch)
        return (*gradients, None, None, None, None)


def _forward(h_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """lse and the targets' logits, (N,) in fp32, of which those of ignored targets mean nothing."""
    (N, C), V = h_NC.shape, len(weight_VC)
    cut = configs.choose_linear("loss_forward", configs.arch_of(h_NC.device), h_NC.dtype)
    tiles, parts = triton.cdiv(N, cut.block_m), triton.cdiv(V, cut.block_n * TILES)
    parts_PN = torch.zeros((parts, N), dtype=torch.float32, device=h_NC.device)
    picked_N = torch.full((N,), float("nan"), dtype=torch.float32, device=h_NC.device)
    if N:
        with torch.cuda.device_of(h_NC):
            loss_forward[(tiles * parts,)](
                h_NC, weight_VC, targets_N, parts_PN, picked_N, h_NC.stride(0), weight_VC.stride(0), N, V, C, tiles,
                ignored, TILES=TILES, **_options(cut, C),
            )  # fmt: skip
    return parts_PN.logsumexp(0), picked_N


def _backward(
    h_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    lse_N: Tensor,
    z_loss: float,
    upstream_N: Tensor,
    of_h: bool,
    of_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """dh and dW, where asked for."""
    (N, C), V = h_NC.shape, len(weight_VC)
    cut = configs.choose_linear("loss_gradient", configs.arch_of(h_NC.device), h_NC.dtype)
    kept_N = lse_N.isfinite()
    # A power of two near the largest factor comes back at the end: in fp16 small numbers would be lost.
    scale = torch.exp2(upstream_N.abs().amax().clamp(min=2.0**-100).log2().round()) if N else upstream_N.new_ones(())
    hard_N = (upstream_N / scale).where(kept_N, 0.0)
    soft_N = hard_N * (1 + 2 * z_loss * lse_N.where(kept_N, 0.0))
    words = max(cut.block_n, AT_ONCE // (max(1, N) * h_NC.element_size()) // cut.block_n * cut.block_n)
    dh_NC = torch.zeros_like(h_NC, dtype=h_NC.dtype if words >= V else torch.float32) if of_h else None
    dweight_VC = torch.zeros_like(weight_VC) if of_weight else None
    for first in range(0, V if N else 0, words):
        part_PC = weight_VC[first : first + words]
        dlogits_NP = h_NC.new_empty((N, len(part_PC)))
        tiles = triton.cdiv(N, cut.block_m)
        with torch.cuda.device_of(h_NC):
            loss_gradient[(tiles * triton.cdiv(len(part_PC), cut.block_n),)](
                h_NC, part_PC, targets_N, lse_N, soft_N, hard_N, dlogits_NP, h_NC.stride(0), part_PC.stride(0), N,
                len(part_PC), C, tiles, first, **_options(cut, C),
            )  # fmt: skip
        if dh_NC is not None:
            dh_NC += dlogits_NP @ part_PC
        if dweight_VC is not None:
            torch.mm(dlogits_NP.T, h_NC, out=dweight_VC[first : first + words])
    return _scaled(dh_NC, scale, h_NC.dtype), _scaled(dweight_VC, scale, weight_VC.dtype)


def _gradients_by_pytorch(
    h_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    ignored: int,
    z_loss: float,
    upstream_N: Tensor,
    of_h: bool,
    of_weight: bool,
) -> tuple[Tensor | None, ...]:
    """dh and dW through the door, which no longer leads here once a kernel is switched off."""
    from kernels import linear_cross_entropy

    leaves = h_NC.detach().requires_grad_(of_h), weight_VC.detach().requires_grad_(of_weight)
    with torch.enable_grad():
        found = linear_cross_entropy(*leaves, targets_N, ignored=ignored, z_loss=z_loss, reduction="none")
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    gradients = iter(torch.autograd.grad(found, asked, upstream_N))
    return tuple(next(gradients) if leaf.requires_grad else None for leaf in leaves)


def _scaled(x: Tensor | None, scale: Tensor, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else (x * scale.to(x.dtype)).to(dtype)


def _options(cut: configs.Linear, C: int) -> dict[str, Any]:
    return {
        "BLOCK_M": cut.block_m,
        "BLOCK_N": cut.block_n,
        "BLOCK_C": cut.block_c,
        "EVEN_C": C % cut.block_c == 0,
        "num_warps": cut.warps,
        "num_stages": cut.stages,
    }
