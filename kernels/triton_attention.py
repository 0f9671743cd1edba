"""Fused attention in Triton: FlashAttention-2 (Dao 2023, arXiv 2307.08691), forward and backward.

Shapes: B batch, H query heads, G key and value heads, GROUP = H / G, T queries, S keys, D head width.
A program holds a tile of BLOCK_M queries or BLOCK_N keys; the scores of a tile pair, BLOCK_M x BLOCK_N, never leave it.

    forward, algorithm 1           for each tile of keys:  s = q kᵀ                                       (line 8)
                                   m' = max(m, rowmax s),  p = 2^(s - m'),  ell' = ell 2^(m - m') + rowsum p    (9)
                                   acc' = acc 2^(m - m') + p v                                                 (10)
                                   at the end:  out = acc / ell,  LSE = m + log2 ell                       (12, 13)
    backward, algorithm 2          delta = rowsum(do · out),  p = 2^(s - LSE),  dp = do vᵀ,  ds = p (dp - delta)
                                   dv = pᵀ do,  dk = dsᵀ q,  dq = ds k

The paper's exponentials become powers of 2: scale · log2(e) is folded into one factor, `scale_log2`, and LSE is kept in
base 2 as well. Its backward is one kernel that adds to dq from many programs; here one kernel owns keys and one owns
queries, so no sum depends on the order of programs: equal inputs give equal bits. They compute s twice.

From top to bottom: loads, stores and scores; which tiles see which; the loop and the kernel of the forward pass
(`_attend`, `forward`); delta (`backward_delta`); the same pair for keys (`_key_gradients`, `backward_keys`) and for
queries (`_query_gradient`, `backward_queries`).

Query i stands at position i + S - T among the keys. Tiles in which every query sees every key run in a loop without
masks; tiles at the edges of the causal triangle, the window and the lengths run in loops with them; tiles beyond are
not visited. A query that sees no key gives 0, LSE +inf (hence p = 0) and gradients of 0.

Names: x_b, x_h, x_t are the strides of tensor X for batch, head and row, the last axis being dense. A width D that is
no power of two is held as two pieces, FIRST and REST columns (72 = 64 + 8, in 16): x and x_. Packed documents: a table
says for each tile which document's rows it works on (`kernels.triton_packed`).
"""

# mypy: disable-error-code="no-untyped-def"
# A kernel's parameters are values of the GPU, which Python's types do not name.

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load(base, start, end, stride, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, BLOCK: tl.constexpr,
          RAGGED: tl.constexpr):  # fmt: skip
    """Rows start to start + BLOCK of one head in its two pieces. RAGGED: rows from `end` on are 0 and not read."""
    row, column = tl.arange(0, BLOCK), tl.arange(0, FIRST)
    rows = base + tl.cast(start, tl.int64) * stride + row[:, None] * stride
    if RAGGED:
        x = tl.load(rows + column[None, :], mask=(start + row < end)[:, None], other=0.0)
    else:
        x = tl.load(rows + column[None, :])
    x_ = x
    if REST > 0:
        column_ = FIRST + tl.arange(0, REST)
        inside = (column_ < D)[None, :]
        if RAGGED:
            inside = inside & (start + row < end)[:, None]
        x_ = tl.load(rows + column_[None, :], mask=inside, other=0.0)
    return x, x_


@triton.jit
def _store(base, start, end, stride, x, x_, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """Write the two pieces of rows start to start + BLOCK, those before `end`."""
    row, column = tl.arange(0, BLOCK), tl.arange(0, FIRST)
    rows = base + tl.cast(start, tl.int64) * stride + row[:, None] * stride
    inside = (start + row < end)[:, None]
    tl.store(rows + column[None, :], x.to(base.dtype.element_ty), mask=inside)
    if REST > 0:
        column_ = FIRST + tl.arange(0, REST)
        tl.store(rows + column_[None, :], x_.to(base.dtype.element_ty), mask=inside & (column_ < D)[None, :])


@triton.jit
def _scores(a, a_, b, b_, REST: tl.constexpr):
    """a bᵀ, the sum over both pieces of the width."""
    s = tl.dot(a, tl.trans(b), input_precision="ieee")
    if REST > 0:
        s = tl.dot(a_, tl.trans(b_), s, input_precision="ieee")
    return s


@triton.jit
def _add_bias(s, base, query_start, key_start, query, key, T, S, bias_t):
    """Scores in base 2 plus the bias of the natural softmax. `query`, `key`: tiles of indices that broadcast to s.

    With bias_t a multiple of 16 one address serves several scores; otherwise each takes one, and registers spill.
    """
    corner = base + tl.cast(query_start, tl.int64) * bias_t + key_start
    places = corner + (query - query_start) * bias_t + (key - key_start)
    bias = tl.load(places, mask=(query < T) & (key < S), other=0.0)
    return s + bias.to(tl.float32) * LOG2E


@triton.jit
def _visible(position, key, keys, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Where a query at `position` sees `key`; both are index tiles that broadcast."""
    seen = key < keys
    if CAUSAL:
        seen = seen & (key <= position)
    if WINDOWED:
        seen = seen & (position - key < window)
        if not CAUSAL:
            seen = seen & (key - position < window)
    return seen


@triton.jit
def _whole_tiles(lo, whole_lo, whole_hi, hi, BLOCK: tl.constexpr):
    """Bounds of three loops over tiles: masked [lo, whole_lo), unmasked up to whole_hi, masked up to hi.

    All but hi lie on the edges of tiles.
    """
    lo = tl.maximum(lo, 0) // BLOCK * BLOCK
    hi = tl.maximum(hi, lo)
    whole_lo = tl.maximum(tl.cdiv(tl.maximum(whole_lo, 0), BLOCK) * BLOCK, lo)
    whole_hi = tl.maximum(tl.maximum(whole_hi, 0) // BLOCK * BLOCK, whole_lo)
    return lo, whole_lo, whole_hi, hi


@triton.jit
def _key_range(first, last, keys, window, BLOCK: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Which keys the queries at positions first to last see, and which all of them see, as bounds of loops."""
    lo, hi = 0, keys
    whole_lo, whole_hi = 0, keys
    if CAUSAL:
        hi, whole_hi = tl.minimum(keys, last + 1), tl.minimum(keys, first + 1)
    if WINDOWED:
        lo, whole_lo = first - window + 1, last - window + 1
        if not CAUSAL:
            hi, whole_hi = tl.minimum(keys, last + window), tl.minimum(keys, first + window)
    return _whole_tiles(lo, whole_lo, whole_hi, hi, BLOCK)


@triton.jit
def _query_range(first, last, T, window, BLOCK: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Which queries see some of the keys that stand at queries first to last, and which see all of them."""
    lo, hi = 0, T
    whole_lo, whole_hi = 0, T
    if CAUSAL:
        lo, whole_lo = first, last
    if WINDOWED:
        hi, whole_hi = tl.minimum(T, last + window), tl.minimum(T, first + window)
        if not CAUSAL:
            lo, whole_lo = first - window + 1, last - window + 1
    return _whole_tiles(lo, whole_lo, whole_hi, hi, BLOCK)


@triton.jit
def _place(tiles, TILES, T, S, CAUSAL: tl.constexpr, PACKED: tl.constexpr, LAST_FIRST: tl.constexpr):
    """What this program works on: batch and head, first row of its document, queries, keys, and which tile of them.

    The tiles with most to do come first, over all heads, so that no long one is left for the end; where all tiles are
    alike, a head's tiles run side by side and share its keys in the cache.
    """
    pid = tl.program_id(0)
    heads = tl.num_programs(0) // tiles
    if CAUSAL or PACKED:
        tile, head = pid // heads, pid % heads
    else:
        tile, head = pid % tiles, pid // tiles
    origin = 0
    if PACKED:
        origin = tl.load(TILES + 3 * tile)
        T = tl.load(TILES + 3 * tile + 1)
        S = T
        tile = tl.load(TILES + 3 * tile + 2)
    elif CAUSAL and LAST_FIRST:
        tile = tiles - 1 - tile
    return head, origin, T, S, tile


@triton.jit
def _count_keys(KEY_LENGTHS, b, S):
    """How many keys of this row of the batch count."""
    keys = S
    if KEY_LENGTHS is not None:
        keys = tl.minimum(tl.maximum(tl.load(KEY_LENGTHS + b).to(tl.int32), 0), S)
    return keys


@triton.jit
def _attend(acc, acc_, ell, m, q, q_, k_base, v_base, bias_base, lo, hi, start, shift, T, S, keys, window, scale_log2,
            k_t, v_t, bias_t, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, BLOCK_M: tl.constexpr,
            BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, BIASED: tl.constexpr,
            MASKED: tl.constexpr):  # fmt: skip
    """The online softmax of one query tile over the key tiles from lo to hi: acc, row sums ell and row maxima m."""
    query = start + tl.arange(0, BLOCK_M)
    for n in range(lo, hi, BLOCK_N):
        key = n + tl.arange(0, BLOCK_N)
        k, k_ = _load(k_base, n, keys, k_t, D, FIRST, REST, BLOCK_N, MASKED)
        s = _scores(q, q_, k, k_, REST)
        factor = scale_log2  # applied in the exponent, one multiply-add with the maximum, unless a bias comes first
        if BIASED:
            s = _add_bias(s * scale_log2, bias_base, start, n, query[:, None], key[None, :], T, S, bias_t)
            factor = 1.0
        if MASKED:
            s = tl.where(
                _visible((query + shift)[:, None], key[None, :], keys, window, CAUSAL, WINDOWED), s, -float("inf")
            )
        m_new = tl.maximum(m, tl.max(s, 1) * factor)
        finite = m_new
        if MASKED or BIASED:  # a row that has seen no key yet has m = -inf, and -inf - -inf is no number
            finite = tl.where(m_new == -float("inf"), 0.0, m_new)
        p = tl.exp2(s * factor - finite[:, None])
        alpha = tl.exp2(m - finite)
        ell = ell * alpha + tl.sum(p, 1)
        v, v_ = _load(v_base, n, keys, v_t, D, FIRST, REST, BLOCK_N, MASKED)
        p = p.to(v.dtype)
        acc = tl.dot(p, v, acc * alpha[:, None], input_precision="ieee")
        if REST > 0:
            acc_ = tl.dot(p, v_, acc_ * alpha[:, None], input_precision="ieee")
        m = m_new
    return acc, acc_, ell, m


@triton.jit
def forward(
    Q, K, V, OUT, LSE, BIAS, KEY_LENGTHS, TILES,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, out_b, out_h, out_t, bias_b, bias_h, bias_t,
    H, T, S, rows, tiles, window, scale_log2,
    GROUP: tl.constexpr, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    BIASED: tl.constexpr, PACKED: tl.constexpr, EVEN_T: tl.constexpr, EVEN_S: tl.constexpr,
):  # fmt: skip
    """OUT and LSE of one tile of queries of one head. `rows` is the length of a head's row of LSE."""
    head, origin, T, S, tile = _place(tiles, TILES, T, S, CAUSAL, PACKED, True)
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    start, shift, keys = tile * BLOCK_M, S - T, _count_keys(KEY_LENGTHS, b, S)
    query = start + tl.arange(0, BLOCK_M)
    origin = tl.cast(origin, tl.int64)
    q_base, out_base = Q + b * q_b + h * q_h + origin * q_t, OUT + b * out_b + h * out_h + origin * out_t
    k_base = K + b * k_b + h // GROUP * k_h + origin * k_t
    v_base = V + b * v_b + h // GROUP * v_h + origin * v_t
    bias_base = BIAS
    if BIASED:
        bias_base = BIAS + b * bias_b + h * bias_h

    q, q_ = _load(q_base, start, T, q_t, D, FIRST, REST, BLOCK_M, not EVEN_T)
    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    ell = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, FIRST], tl.float32)
    acc_ = tl.zeros([BLOCK_M, REST if REST > 0 else 16], tl.float32)
    first, last = start + shift, start + shift + BLOCK_M - 1  # positions of this tile's queries
    lo, whole_lo, whole_hi, hi = _key_range(first, last, keys, window, BLOCK_N, CAUSAL, WINDOWED)
    if WINDOWED:
        acc, acc_, ell, m = _attend(
            acc, acc_, ell, m, q, q_, k_base, v_base, bias_base, lo, tl.minimum(whole_lo, hi), start, shift, T, S, keys,
            window, scale_log2, k_t, v_t, bias_t, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED, BIASED,
            True)  # fmt: skip
    acc, acc_, ell, m = _attend(
        acc, acc_, ell, m, q, q_, k_base, v_base, bias_base, whole_lo, whole_hi, start, shift, T, S, keys,
        window, scale_log2, k_t, v_t, bias_t, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED, BIASED,
        False)  # fmt: skip
    if CAUSAL or WINDOWED or not EVEN_S:
        acc, acc_, ell, m = _attend(
            acc, acc_, ell, m, q, q_, k_base, v_base, bias_base, whole_hi, hi, start, shift, T, S, keys,
            window, scale_log2, k_t, v_t, bias_t, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED, BIASED,
            True)  # fmt: skip

    seen = ell > 0.0
    inverse = 1.0 / tl.where(seen, ell, 1.0)
    _store(out_base, start, T, out_t, acc * inverse[:, None], acc_ * inverse[:, None], D, FIRST, REST, BLOCK_M)
    lse = tl.where(seen, m + tl.log2(tl.where(seen, ell, 1.0)), float("inf"))
    tl.store(LSE + tl.cast(head, tl.int64) * rows + origin + query, lse, mask=query < T)


@triton.jit
def backward_delta(
    OUT, DOUT, DELTA, out_b, out_h, out_t, dout_b, dout_h, dout_t, H, rows,
    D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """DELTA = rowsum(DOUT · OUT) of one tile of rows of one head (algorithm 2, line 4)."""
    start = tl.program_id(0) * BLOCK_M
    head = tl.program_id(1)
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    o, o_ = _load(OUT + b * out_b + h * out_h, start, rows, out_t, D, FIRST, REST, BLOCK_M, True)
    do, do_ = _load(DOUT + b * dout_b + h * dout_h, start, rows, dout_t, D, FIRST, REST, BLOCK_M, True)
    delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    if REST > 0:
        delta += tl.sum(o_.to(tl.float32) * do_.to(tl.float32), 1)
    row = start + tl.arange(0, BLOCK_M)
    tl.store(DELTA + tl.cast(head, tl.int64) * rows + row, delta, mask=row < rows)


@triton.jit
def _key_gradients(dk, dk_, dv, dv_, k, k_, v, v_, q_base, dout_base, lse_base, delta_base, bias_base, lo, hi,
                   key_start, shift, T, S, keys, window, scale_log2, q_h, q_t, dout_h, dout_t, bias_h, bias_t,
                   rows, GROUP: tl.constexpr, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr,
                   BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
                   BIASED: tl.constexpr, MASKED: tl.constexpr):  # fmt: skip
    """dk / scale and dv of one key tile from the query tiles lo to hi of each of GROUP heads, in one flat loop.

    Queries from T on have p = 0 by LSE = +inf. Keys from `keys` on spoil only their own rows, which are not kept.
    """
    key = key_start + tl.arange(0, BLOCK_N)
    count = tl.cdiv(hi - lo, BLOCK_M)
    for step in range(0, GROUP * count):
        head = step // count if GROUP > 1 else 0
        start = lo + (step - head * count) * BLOCK_M
        query = start + tl.arange(0, BLOCK_M)
        offset = tl.cast(head, tl.int64)
        q, q_ = _load(q_base + offset * q_h, start, T, q_t, D, FIRST, REST, BLOCK_M, MASKED)
        s = _scores(k, k_, q, q_, REST) * scale_log2  # (BLOCK_N, BLOCK_M): all of this kernel is transposed
        if BIASED:
            here = bias_base + offset * bias_h
            s = _add_bias(s, here, start, key_start, query[None, :], key[:, None], T, S, bias_t)
        if MASKED:
            lse = tl.load(lse_base + offset * rows + query, mask=query < T, other=float("inf"))
            delta = tl.load(delta_base + offset * rows + query, mask=query < T, other=0.0)
        else:
            lse = tl.load(lse_base + offset * rows + query)
            delta = tl.load(delta_base + offset * rows + query)
        p = tl.exp2(s - lse[None, :])
        if MASKED and (CAUSAL or WINDOWED):
            p = tl.where(_visible((query + shift)[None, :], key[:, None], keys, window, CAUSAL, WINDOWED), p, 0.0)
        do, do_ = _load(dout_base + offset * dout_h, start, T, dout_t, D, FIRST, REST, BLOCK_M, MASKED)
        p_low = p.to(do.dtype)
        dv = tl.dot(p_low, do, dv, input_precision="ieee")
        ds = (p * (_scores(v, v_, do, do_, REST) - delta[None, :])).to(q.dtype)
        dk = tl.dot(ds, q, dk, input_precision="ieee")
        if REST > 0:
            dv_ = tl.dot(p_low, do_, dv_, input_precision="ieee")
            dk_ = tl.dot(ds, q_, dk_, input_precision="ieee")
    return dk, dk_, dv, dv_


@triton.jit
def backward_keys(
    Q, K, V, DOUT, LSE, DELTA, BIAS, KEY_LENGTHS, TILES, DK, DV,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, bias_b, bias_h, bias_t,
    dk_b, dk_h, dk_t, dv_b, dv_h, dv_t, H, T, S, rows, tiles, window, scale, scale_log2,
    GROUP: tl.constexpr, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    BIASED: tl.constexpr, PACKED: tl.constexpr, EVEN_T: tl.constexpr, EVEN_S: tl.constexpr,
):  # fmt: skip
    """DK and DV of one tile of keys of one key head, over all query heads that share it."""
    kv_head, origin, T, S, tile = _place(tiles, TILES, T, S, CAUSAL, PACKED, False)
    key_heads = H // GROUP
    b, h = (kv_head // key_heads).to(tl.int64), (kv_head % key_heads).to(tl.int64)
    start, shift, keys = tile * BLOCK_N, S - T, _count_keys(KEY_LENGTHS, b, S)
    key = start + tl.arange(0, BLOCK_N)
    origin = tl.cast(origin, tl.int64)
    q_base = Q + b * q_b + h * GROUP * q_h + origin * q_t
    dout_base = DOUT + b * dout_b + h * GROUP * dout_h + origin * dout_t
    lse_base = LSE + (b * H + h * GROUP) * rows + origin
    delta_base = DELTA + (b * H + h * GROUP) * rows + origin
    bias_base = BIAS
    if BIASED:
        bias_base = BIAS + b * bias_b + h * GROUP * bias_h

    k, k_ = _load(K + b * k_b + h * k_h + origin * k_t, start, S, k_t, D, FIRST, REST, BLOCK_N, not EVEN_S)
    v, v_ = _load(V + b * v_b + h * v_h + origin * v_t, start, S, v_t, D, FIRST, REST, BLOCK_N, not EVEN_S)
    dk = tl.zeros([BLOCK_N, FIRST], tl.float32)
    dv = tl.zeros([BLOCK_N, FIRST], tl.float32)
    dk_ = tl.zeros([BLOCK_N, REST if REST > 0 else 16], tl.float32)
    dv_ = tl.zeros([BLOCK_N, REST if REST > 0 else 16], tl.float32)
    queries = tl.where(start < keys, T, 0)  # nobody sees a tile of keys that do not count
    first, last = start - shift, start - shift + BLOCK_N - 1  # queries that stand at this tile's keys
    lo, whole_lo, whole_hi, hi = _query_range(first, last, queries, window, BLOCK_M, CAUSAL, WINDOWED)
    if CAUSAL or WINDOWED:
        dk, dk_, dv, dv_ = _key_gradients(
            dk, dk_, dv, dv_, k, k_, v, v_, q_base, dout_base, lse_base, delta_base, bias_base, lo,
            tl.minimum(whole_lo, hi), start, shift, T, S, keys, window, scale_log2, q_h, q_t, dout_h, dout_t, bias_h,
            bias_t, rows, GROUP, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED, BIASED, True)  # fmt: skip
    dk, dk_, dv, dv_ = _key_gradients(
        dk, dk_, dv, dv_, k, k_, v, v_, q_base, dout_base, lse_base, delta_base, bias_base, whole_lo, whole_hi,
        start, shift, T, S, keys, window, scale_log2, q_h, q_t, dout_h, dout_t, bias_h, bias_t, rows,
        GROUP, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED, BIASED, False)  # fmt: skip
    if WINDOWED or not EVEN_T:
        dk, dk_, dv, dv_ = _key_gradients(
            dk, dk_, dv, dv_, k, k_, v, v_, q_base, dout_base, lse_base, delta_base, bias_base, whole_hi, hi,
            start, shift, T, S, keys, window, scale_log2, q_h, q_t, dout_h, dout_t, bias_h, bias_t, rows,
            GROUP, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED, BIASED, True)  # fmt: skip

    counts = (key < keys)[:, None]
    dk, dv = tl.where(counts, dk * scale, 0.0), tl.where(counts, dv, 0.0)
    dk_, dv_ = tl.where(counts, dk_ * scale, 0.0), tl.where(counts, dv_, 0.0)
    _store(DK + b * dk_b + h * dk_h + origin * dk_t, start, S, dk_t, dk, dk_, D, FIRST, REST, BLOCK_N)
    _store(DV + b * dv_b + h * dv_h + origin * dv_t, start, S, dv_t, dv, dv_, D, FIRST, REST, BLOCK_N)


@triton.jit
def _query_gradient(dq, dq_, q, q_, do, do_, lse, delta, k_base, v_base, bias_base, lo, hi, start, shift, T, S, keys,
                    window, scale_log2, k_t, v_t, bias_t, D: tl.constexpr, FIRST: tl.constexpr,
                    REST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
                    WINDOWED: tl.constexpr, BIASED: tl.constexpr, MASKED: tl.constexpr):  # fmt: skip
    """dq / scale of one query tile from the key tiles lo to hi."""
    query = start + tl.arange(0, BLOCK_M)
    for n in range(lo, hi, BLOCK_N):
        key = n + tl.arange(0, BLOCK_N)
        k, k_ = _load(k_base, n, keys, k_t, D, FIRST, REST, BLOCK_N, MASKED)
        s = _scores(q, q_, k, k_, REST) * scale_log2
        if BIASED:
            s = _add_bias(s, bias_base, start, n, query[:, None], key[None, :], T, S, bias_t)
        p = tl.exp2(s - lse[:, None])
        if MASKED:
            p = tl.where(_visible((query + shift)[:, None], key[None, :], keys, window, CAUSAL, WINDOWED), p, 0.0)
        v, v_ = _load(v_base, n, keys, v_t, D, FIRST, REST, BLOCK_N, MASKED)
        ds = (p * (_scores(do, do_, v, v_, REST) - delta[:, None])).to(k.dtype)
        dq = tl.dot(ds, k, dq, input_precision="ieee")
        if REST > 0:
            dq_ = tl.dot(ds, k_, dq_, input_precision="ieee")
    return dq, dq_


@triton.jit
def backward_queries(
    Q, K, V, DOUT, LSE, DELTA, BIAS, KEY_LENGTHS, TILES, DQ,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, bias_b, bias_h, bias_t,
    dq_b, dq_h, dq_t, H, T, S, rows, tiles, window, scale, scale_log2,
    GROUP: tl.constexpr, D: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    BIASED: tl.constexpr, PACKED: tl.constexpr, EVEN_T: tl.constexpr, EVEN_S: tl.constexpr,
):  # fmt: skip
    """DQ of one tile of queries of one head."""
    head, origin, T, S, tile = _place(tiles, TILES, T, S, CAUSAL, PACKED, True)
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    start, shift, keys = tile * BLOCK_M, S - T, _count_keys(KEY_LENGTHS, b, S)
    query = start + tl.arange(0, BLOCK_M)
    origin = tl.cast(origin, tl.int64)
    k_base = K + b * k_b + h // GROUP * k_h + origin * k_t
    v_base = V + b * v_b + h // GROUP * v_h + origin * v_t
    bias_base = BIAS
    if BIASED:
        bias_base = BIAS + b * bias_b + h * bias_h

    q, q_ = _load(Q + b * q_b + h * q_h + origin * q_t, start, T, q_t, D, FIRST, REST, BLOCK_M, not EVEN_T)
    dout_base = DOUT + b * dout_b + h * dout_h + origin * dout_t
    do, do_ = _load(dout_base, start, T, dout_t, D, FIRST, REST, BLOCK_M, not EVEN_T)
    here = tl.cast(head, tl.int64) * rows + origin
    lse = tl.load(LSE + here + query, mask=query < T, other=float("inf"))
    delta = tl.load(DELTA + here + query, mask=query < T, other=0.0)
    dq = tl.zeros([BLOCK_M, FIRST], tl.float32)
    dq_ = tl.zeros([BLOCK_M, REST if REST > 0 else 16], tl.float32)
    first, last = start + shift, start + shift + BLOCK_M - 1  # positions of this tile's queries
    lo, whole_lo, whole_hi, hi = _key_range(first, last, keys, window, BLOCK_N, CAUSAL, WINDOWED)
    if WINDOWED:
        dq, dq_ = _query_gradient(
            dq, dq_, q, q_, do, do_, lse, delta, k_base, v_base, bias_base, lo, tl.minimum(whole_lo, hi), start, shift,
            T, S, keys, window, scale_log2, k_t, v_t, bias_t, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL,
            WINDOWED, BIASED, True)  # fmt: skip
    dq, dq_ = _query_gradient(
        dq, dq_, q, q_, do, do_, lse, delta, k_base, v_base, bias_base, whole_lo, whole_hi, start, shift, T, S,
        keys, window, scale_log2, k_t, v_t, bias_t, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED, BIASED,
        False)  # fmt: skip
    if CAUSAL or WINDOWED or not EVEN_S:
        dq, dq_ = _query_gradient(
            dq, dq_, q, q_, do, do_, lse, delta, k_base, v_base, bias_base, whole_hi, hi, start, shift, T, S,
            keys, window, scale_log2, k_t, v_t, bias_t, D, FIRST, REST, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED,
            BIASED, True)  # fmt: skip
    dq_base = DQ + b * dq_b + h * dq_h + origin * dq_t
    _store(dq_base, start, T, dq_t, dq * scale, dq_ * scale, D, FIRST, REST, BLOCK_M)
