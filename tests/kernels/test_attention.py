"""Every backend behind the door against the reference in float64."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import attention, attention_decode, attention_packed, backend_report, choice, plain, reference, sdpa

BACKENDS = {"door": attention, "sdpa": sdpa.attention, "plain": plain.attention, "reference": reference.attention}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 4e-2}


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).to(dtype)


def with_gradients(function: Callable[..., Tensor], tensors: list[Tensor], **options: object) -> list[Tensor]:
    """The output and the gradients of a fixed scalar of it."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = function(*leaves, **options)
    out.backward(draw(*out.shape, seed=9).to(out.dtype))
    return [out.detach(), *(x.grad for x in leaves)]


def assert_close(ours: list[Tensor], truth: list[Tensor], dtype: torch.dtype) -> None:
    for a, b in zip(ours, truth, strict=True):
        assert a.dtype == dtype
        assert torch.isfinite(a).all()
        assert (a.double() - b).abs().max() <= TOLERANCE[dtype] * max(1.0, b.abs().max().item())


CASES = list(
    itertools.product(
        [(2, 4, 4, 7, 7, 8), (2, 6, 2, 5, 9, 16), (1, 3, 1, 9, 5, 4), (1, 2, 2, 1, 6, 8)],  # B, H, G, T, S, D
        [False, True],  # causal
        [None, 1, 3],  # window
        [False, True],  # key_lengths
        [False, True],  # bias
    )
)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["door", "sdpa", "plain"])
def test_backends_equal_the_reference_forward_and_backward(name: str, dtype: torch.dtype) -> None:
    served = 0
    for (B, H, G, T, S, D), causal, window, lengths, bias in CASES:
        if name == "plain" and not plain.serves(T, S, causal, window, bias, lengths, False):
            continue
        tensors = [draw(B, H, T, D), draw(B, G, S, D, seed=1), draw(B, G, S, D, seed=2)]
        tensors = [x.to(dtype) for x in tensors]
        options = {"causal": causal, "window": window, "scale": 0.3 if window else None}
        if lengths:
            options["key_lengths"] = torch.tensor([0, S - 1][:B])
        if bias:
            options["bias"] = draw(1, H, T, S, seed=3).to(dtype)
        truth_options = options | ({"bias": options["bias"].double()} if bias else {})
        truth = with_gradients(reference.attention, [x.double() for x in tensors], **truth_options)
        assert_close(with_gradients(BACKENDS[name], tensors, **options), truth, dtype)
        served += 1
    assert served >= (len(CASES) if name != "plain" else 10)


def test_the_reference_is_softmax_of_scaled_products() -> None:
    q, k, v = (draw(1, 1, 3, 2, seed=i) for i in range(3))
    weights = torch.tensor([[torch.exp(q[0, 0, i] @ k[0, 0, j] / 2**0.5).item() for j in range(3)] for i in range(3)])
    weights = torch.tril(weights.double())
    expected = weights / weights.sum(-1, keepdim=True) @ v[0, 0]
    assert torch.allclose(reference.attention(q, k, v, causal=True)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["door", "sdpa", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_sees_no_key_gives_zero_and_no_gradient(name: str, dtype: torch.dtype) -> None:
    q, k, v = (
        draw(2, 2, 4, 8, dtype=dtype),
        draw(2, 2, 4, 8, dtype=dtype, seed=1),
        draw(2, 2, 4, 8, dtype=dtype, seed=2),
    )
    hidden = torch.zeros(1, 1, 4, 4, dtype=dtype)
    hidden[:, :, 1] = float("-inf")
    for options in ({"key_lengths": torch.tensor([0, 3])}, {"bias": hidden}, {"bias": hidden, "causal": True}):
        out, *gradients = with_gradients(BACKENDS[name], [q, k, v], **options)
        rows = (out[0],) if "key_lengths" in options else (out[:, :, 1], gradients[0][:, :, 1])
        assert all((row == 0).all() for row in rows)
        assert all(torch.isfinite(x).all() for x in (out, *gradients))


def test_a_bias_receives_its_gradient() -> None:
    q, k, v = (draw(2, 2, 5, 8, seed=i) for i in range(3))
    biases = [draw(1, 2, 5, 5).float().requires_grad_(), draw(1, 2, 5, 5).requires_grad_()]
    biases[1].data.copy_(biases[0].data)
    attention(q.float(), k.float(), v.float(), causal=True, bias=biases[0]).square().sum().backward()
    reference.attention(q, k, v, causal=True, bias=biases[1]).square().sum().backward()
    assert torch.allclose(biases[0].grad.double(), biases[1].grad, atol=1e-4)
    assert biases[0].grad.abs().max() > 0.01


def test_dropout_drops_and_keeps_the_mean() -> None:
    q, k, v = draw(8, 8, 16, 8).float(), draw(8, 8, 16, 8, seed=1).float(), torch.ones(8, 8, 16, 8)
    torch.manual_seed(0)
    for backend in (attention, reference.attention):
        out = backend(q, k, v, dropout=0.5)
        assert out.std() > 0.1
        assert abs(out.mean() - 1) < 0.05


def test_causal_is_aligned_to_the_end() -> None:
    q, k, v = draw(1, 2, 9, 8), draw(1, 2, 9, 8, seed=1), draw(1, 2, 9, 8, seed=2)
    whole = attention(q, k, v, causal=True)
    assert torch.allclose(attention(q[:, :, 6:], k, v, causal=True), whole[:, :, 6:])


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ends", [[0, 3, 4, 10], [0, 3, 3, 8, 8], [0, 10]])
def test_packed_documents_do_not_see_each_other(ends: list[int], causal: bool, window: int | None) -> None:
    tensors = [draw(10, 4, 8), draw(10, 2, 8, seed=1), draw(10, 2, 8, seed=2)]
    options = {"cu_seqlens": torch.tensor(ends, dtype=torch.int32), "causal": causal, "window": window}
    expected = with_gradients(reference.attention_packed, tensors, **options)
    ours = with_gradients(attention_packed, [x.float() for x in tensors], **options)
    assert_close(ours, expected, torch.float32)
    assert (ours[0][ends[-1] :] == 0).all()
    for a, b in itertools.pairwise(ends):
        if a < b:
            alone = attention(*(x[a:b].transpose(0, 1)[None] for x in tensors), causal=causal, window=window)
            assert torch.allclose(ours[0][a:b].double(), alone[0].transpose(0, 1), atol=1e-5)


def test_no_document_at_all_gives_zeros() -> None:
    q = draw(3, 2, 4)
    assert (attention_packed(q, q, q, torch.tensor([0, 0]), causal=True) == torch.zeros(3, 2, 4)).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("window", [None, 1, 4])
def test_decoding_equals_the_last_row_of_causal_attention(window: int | None, dtype: torch.dtype) -> None:
    lengths = torch.tensor([1, 5, 8, 0])
    q, k, v = draw(4, 4, 8), draw(4, 2, 12, 8, seed=1), draw(4, 2, 12, 8, seed=2)
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    k[0, :, 8:], v[0, :, 8:] = float("nan"), float("nan")  # beyond every length: never read
    ours = attention_decode(q, k, v, lengths, window=window)
    for b, n in enumerate(lengths.tolist()):
        args = (q[b : b + 1, :, None].double(), k[b : b + 1, :, :n].double(), v[b : b + 1, :, :n].double())
        expected = reference.attention(*args, causal=True, window=window) if n else torch.zeros(1, 4, 1, 8)
        assert (ours[b].double() - expected[0, :, 0]).abs().max() <= TOLERANCE[dtype] * 3
    k, v = k.nan_to_num(), v.nan_to_num()
    for backend in (reference, sdpa):
        theirs = backend.attention_decode(q, k, v, lengths, window=window)
        assert torch.allclose(theirs, ours, atol=TOLERANCE[dtype])


def test_shapes_that_do_not_fit_are_named() -> None:
    q, k = draw(1, 3, 4, 8), draw(1, 2, 4, 8)
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 8\).*number of heads"):
        attention(q, k, k)
    with pytest.raises(ValueError, match="window"):
        attention(q, q, q, window=0)
    with pytest.raises(ValueError, match="cu_seqlens"):
        attention_packed(q[0], q[0], q[0], torch.tensor([0, 3, 2]), causal=True)


def test_a_mask_kept_from_inference_serves_training() -> None:
    q = draw(1, 1, 11, 4).float()
    with torch.inference_mode():
        attention(q, q, q, causal=True)
    leaf = q.clone().requires_grad_()
    attention(leaf, leaf, leaf, causal=True).sum().backward()
    assert leaf.grad is not None


def test_the_report_says_which_backend_serves_and_why() -> None:
    rows = backend_report("cpu")
    calls = {"attention", "attention_packed", "attention_decode", "linear_cross_entropy", "swiglu", "rotary"}
    assert {row.call.split(",")[0] for row in rows} == calls
    assert all(row.why and row.dtype in {"float32", "bfloat16", "float64"} for row in rows)
    short = [row for row in rows if row.call == "attention, up to 512 keys" and row.dtype == "bfloat16"]
    assert "plain" in {row.backend for row in short}
    assert {row.backend for row in rows if row.call == "attention, over 512 keys"} == {"sdpa"}


@pytest.mark.parametrize(("asked", "serves"), [("reference", "reference"), ("sdpa", "sdpa"), ("triton", "plain")])
def test_the_environment_names_a_backend(asked: str, serves: str) -> None:
    code = """if 1:
        import torch
        from kernels import attention, backend_report
        q = torch.randn(1, 2, 8, 4)
        for _ in range(3):
            attention(q, q, q, causal=True)
        print(backend_report("cpu")[0].backend)
    """
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={"WORKBENCH_ATTENTION": asked, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert child.stdout.strip() == serves
    assert child.stderr.count("WORKBENCH_ATTENTION") == (asked == "triton")


def test_a_fallback_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import importlib

    door = importlib.import_module("kernels.attention")
    monkeypatch.setattr(door, "_chosen", {})
    choice.say_once.cache_clear()
    monkeypatch.setenv("WORKBENCH_ATTENTION", "plain")
    q = draw(2, 2, 4, 8).float()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            attention(q, q, q, key_lengths=torch.tensor([2, 4]))
    assert len(caplog.records) == 1
    assert "passed over" in caplog.text
