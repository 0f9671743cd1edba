"""Distillation: its loss as derived by hand, a student that approaches its teacher, and resuming bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stages import distill
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.distill import Teaching, distillation_losses
from stages.models.loss import IGNORED
from stages.sft import Job
from stages.store.checkpoints import list_checkpoints, write_manifest
from stages.store.errors import UserError
from stages.store.workspace import Workspace
from tests.stages.helpers import copy_of, finish, made_run
from tests.stages.resuming import bits, gone_on, killed_and_gone_on
from tests.stages.sft_helpers import SMALL, chat_workspace, job_in, tune
from tests.tiny_model import write_tiny_checkpoint
from workbench import runs


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The model `base`, its teacher `tutor`, the conversations `sums` and the text `rhymes`."""
    folder = tmp_path_factory.mktemp("distilling")
    workspace = chat_workspace(folder)
    text = folder / "rhymes.txt"
    text.write_text("".join(f"{n} green bottles, {n * 7 % 13} brown ones.\n\n" for n in range(400)))
    finish(runs.launch(workspace, "build", "rhymes", {"sources": [str(text)], "split": "tail:0.2"}))
    finish(tune(workspace, "tutor", steps=150, lr=1e-2, sample_every=0, eval_every=150, checkpoint_every=150))
    return workspace


@pytest.fixture
def workspace(original: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(original, tmp_path)


def student(
    workspace: Workspace, name: str = "student", *, dataset: str = "sums", teacher: str = "tutor", **settings: Any
) -> Job:
    """A job of distillation, prepared in this process."""
    parents = {"dataset": dataset, "checkpoint": "base", "teacher": teacher}
    return distill.prepare(made_run(workspace, "distill", name, SMALL | settings, **parents))


def teaching(job: Job) -> Teaching:
    assert isinstance(job.aim, Teaching)
    return job.aim


def by_hand(
    h: Tensor, weight: Tensor, g: Tensor, teacher: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Both losses as sums over the vocabulary, written out."""
    hard, soft, count = torch.zeros((), dtype=h.dtype), torch.zeros((), dtype=h.dtype), 0
    for h_C, g_D, target in zip(h, g, targets.tolist(), strict=True):
        if target == IGNORED:
            continue
        z, y = weight @ h_C, teacher @ g_D
        shared = min(len(z), len(y))
        hard = hard - (z[target] - z.exp().sum().log())
        p, q = ((x[:shared] / temperature).exp() for x in (z, y))
        p, q = p / p.sum(), q / q.sum()
        soft = soft + (q * (q.log() - p.log())).sum()
        count += 1
    return hard / count, soft / count


@pytest.mark.parametrize("at_once", [10**6, 40])
@pytest.mark.parametrize("rows", [17, 21, 13])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_losses_and_their_gradients_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, at_once: int, rows: int, temperature: float
) -> None:
    """Also in chunks, and where the teacher's output layer has more or fewer rows than the student's 17."""
    monkeypatch.setattr(distill, "AT_ONCE", at_once)
    dice = torch.Generator().manual_seed(0)
    drawn = [(12, 6), (17, 6), (12, 9), (rows, 9)]
    h, weight, g, teacher = (torch.randn(shape, generator=dice, dtype=torch.float64) for shape in drawn)
    targets = torch.randint(0, 13, (12,), generator=dice)
    targets[[0, 5, 6]] = IGNORED

    single = [tensor.float().requires_grad_(number < 2) for number, tensor in enumerate((h, weight, g, teacher))]
    hard, soft = distillation_losses(*single, targets, temperature)
    (0.3 * hard + 0.7 * temperature**2 * soft).backward()

    h.requires_grad_(), weight.requires_grad_()
    wanted_hard, wanted_soft = by_hand(h, weight, g, teacher, targets, temperature)
    (0.3 * wanted_hard + 0.7 * temperature**2 * wanted_soft).backward()
    assert abs(hard.item() - wanted_hard.item()) < 1e-5 and abs(soft.item() - wanted_soft.item()) < 1e-5
    for mine, theirs in ((single[0].grad, h.grad), (single[1].grad, weight.grad)):
        assert mine is not None and theirs is not None
        assert torch.allclose(mine.double(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", [{"packing": True}, {"packing": False}, {"method": "lora", "lora_rank": 4}])
def test_without_a_share_of_the_teacher_it_is_instruction_tuning_bit_for_bit(
    workspace: Workspace, how: dict[str, Any]
) -> None:
    settings = {"dropout": 0.1, "micro_batch": 3, **how}
    plain, taught = job_in(workspace, **settings), student(workspace, alpha=0.0, **settings)
    torch.manual_seed(0)
    losses = [plain.step() for _ in range(5)]
    torch.manual_seed(0)
    assert [taught.step() for _ in range(5)] == losses
    assert torch.equal(taught.opened.optimizer.master, plain.opened.optimizer.master)
    assert taught.figures() == {}


@pytest.mark.parametrize("packing", [True, False])
def test_a_student_of_the_teacher_alone_approaches_it(workspace: Workspace, packing: bool) -> None:
    job = student(workspace, alpha=1.0, temperature=2.0, steps=150, lr=1e-2, packing=packing)
    before = job.evaluate(whole=True)["val/loss"]
    apart = []
    for _ in range(150):
        loss, _, _ = job.step()
        apart.append(job.figures()["distill/kl"])
    assert np.mean(apart[-10:]) < 0.05 * apart[0]
    assert job.evaluate(whole=True)["val/loss"] < 0.5 * before and 0 < loss < 0.5 * before


def test_the_reported_loss_is_the_hard_one_and_the_gradient_that_of_the_mixture(workspace: Workspace) -> None:
    job = student(workspace, alpha=0.4, temperature=3.0)
    batch = job.train.batch(job.train.order(0, 2), job.tokenizer.pad_id)
    job.model.eval()
    teaching(job).begin()
    objective, hard = job.objective(batch), job.loss(batch)
    assert objective.item() == pytest.approx(hard.item(), abs=1e-5)
    gradients = [torch.autograd.grad(objective, job.model.tokens)[0]]
    tokens, targets, documents = job.tensors(batch)
    teacher = teaching(job).teacher
    parts = (job.model(tokens, None, documents).flatten(0, 1), teacher(tokens, None, documents).flatten(0, 1))
    kept = targets.flatten() != IGNORED
    log_p, log_q = ((part[kept] / 3.0).log_softmax(-1) for part in parts)
    soft = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    gradients.append(torch.autograd.grad(0.6 * hard + 0.4 * 9.0 * soft, job.model.tokens)[0])
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-6)
    assert job.figures()["distill/kl"] == pytest.approx(soft.item(), rel=1e-4)
    assert not teacher.training and all(not weight.requires_grad for weight in teacher.parameters())


def test_micro_batches_add_up_to_the_step(workspace: Workspace) -> None:
    whole, parts = (student(workspace, f"by-{size}", micro_batch=size) for size in (4, 1))
    assert whole.step() == pytest.approx(parts.step(), rel=1e-4)
    assert whole.figures() == pytest.approx(parts.figures(), rel=1e-4)


def test_a_text_is_learnt_in_blocks_of_which_every_token_is_trained(workspace: Workspace) -> None:
    job = student(workspace, dataset="rhymes", context=32, alpha=0.5, lr=1e-2, steps=60, packing=True)
    batch = job.train.batch(job.train.order(0, 4), job.tokenizer.pad_id)
    assert batch.documents is None and batch.tokens.shape == (4, 32)
    assert (batch.targets[:, :-1] == batch.tokens[:, 1:]).all() and (batch.targets[:, -1] == IGNORED).all()
    before = job.evaluate(whole=True)["val/loss"]
    for _ in range(60):
        job.step()
    assert job.evaluate(whole=True)["val/loss"] < 0.6 * before
    job.sample()
    job.course.save(job)
    assert "im_start" not in (list_checkpoints(job.run.dir)[-1].path / "chat_template.jinja").read_text()


@pytest.mark.parametrize("settings", [{"dataset": "sums"}, {"dataset": "rhymes", "context": 24}])
def test_resuming_changes_no_bit(workspace: Workspace, settings: dict[str, Any]) -> None:
    options = {"dropout": 0.1, "micro_batch": 3, **settings}
    whole, broken = student(workspace, "whole", **options), student(workspace, "broken", **options)
    gone_on(whole, broken, distill.prepare, 3, 4, None)


def test_a_killed_worker_ends_with_the_same_bits(workspace: Workspace) -> None:
    def launch(name: str) -> Any:
        settings = SMALL | {"dropout": 0.1, "steps": 30}
        parents = {"dataset": "sums", "checkpoint": "base", "extra": {"teacher": "tutor"}}
        return runs.launch(workspace, "distill", name, settings, **parents)

    whole, broken = killed_and_gone_on(launch, steps=30)
    assert bits(broken) == bits(whole)
    lineage = list_checkpoints(whole)[-1].lineage()
    assert lineage is not None and lineage.parents["teacher"].name.endswith("step-150")


def test_a_teacher_of_another_tokenizer_is_refused(workspace: Workspace) -> None:
    folder = write_tiny_checkpoint(workspace.models / "stranger", context=96)
    save_tokenizer(train_tokenizer(["abc abd abe"] * 9, "bpe", 264, split_digits=False), folder)
    write_manifest(folder)
    with pytest.raises(UserError, match="do not share a tokenizer"):
        student(workspace, teacher="stranger")


def test_a_teacher_that_sees_less_than_the_longest_record_is_refused(workspace: Workspace) -> None:
    write_tiny_checkpoint(workspace.models / "short", context=16)
    with pytest.raises(UserError, match="The teacher sees 16 tokens, and the longest text"):
        student(workspace, teacher="short")


def test_a_run_without_its_teacher_or_with_one_too_many_is_not_launched(workspace: Workspace) -> None:
    parents: dict[str, Any] = {"dataset": "sums", "checkpoint": "base"}
    with pytest.raises(UserError, match="distill needs a teacher"):
        runs.launch(workspace, "distill", "x", SMALL, **parents)
    with pytest.raises(UserError, match="sft takes no teacher"):
        runs.launch(workspace, "sft", "x", SMALL, extra={"teacher": "tutor"}, **parents)
    assert "x" not in runs.run_names(workspace)


def test_tuning_goes_by_the_plain_loss(workspace: Workspace) -> None:
    job = job_in(workspace)
    assert job.aim is None and job.figures() == {}
