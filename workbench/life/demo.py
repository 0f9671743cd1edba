"""The demo: a transformer's whole life on the part of the starter world that a small model learns in minutes.

Its steps are runs like any others, launched one after the other into the workspace, so that an app opened beside it
shows each at work. A step that has finished is not repeated; one that was interrupted goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stages.store.checkpoints import Best, best_checkpoint
from stages.store.errors import UserError
from stages.store.evaluations import Evaluation, read_evaluation
from stages.store.rundir import RunDir, find_run, list_runs
from stages.store.workspace import Workspace
from workbench import runs


class Step(NamedTuple):
    """A step of the demo. Parents are names of datasets, tokenizers and runs, as people write them."""

    stage: str
    name: str
    about: str
    settings: Mapping[str, Any] = {}
    parents: Mapping[str, Any] = {}
    """Arguments of `runs.launch`."""


def plan(seed: int = 0, prefix: str = "demo") -> list[Step]:
    """The steps in their order. Names begin with `prefix`, so that several lives fit one workspace."""

    def named(what: str) -> str:
        return f"{prefix}-{what}"

    def onward(stage: str, name: str, about: str, settings: Mapping[str, Any], **parents: Any) -> Step:
        return Step(stage, named(name), about, {"seed": seed, **settings}, parents)

    sft, reward, policy = named("sft"), named("reward-model"), named("policy")
    judged = named("judged")
    return [
        *(
            Step("build", named(what), about, {"sources": [f"starter:{source}"], **settings})
            for what, source, about, settings in DATASETS
        ),
        Step("tokenizer", named("bpe"), "a tokenizer", TOKENIZER, {"dataset": named("text")}),
        onward("pretrain", "base", "a language model", PRETRAIN, dataset=named("text"), tokenizer=named("bpe")),
        onward("sft", "sft", "it learns to answer", SFT, dataset=named("chat"), checkpoint=named("base")),
        onward(
            "best_of", "judged", "its own answers, ranked by the world's rule", JUDGED, dataset=policy, checkpoint=sft
        ),
        onward("reward", "reward-model", "what is preferred of these", REWARD, dataset=judged, checkpoint=sft),
        onward("dpo", "dpo", "better answers, from its own that were ranked", DPO, dataset=judged, checkpoint=sft),
        onward("grpo", "grpo", "better answers, rewarded by the rule", GRPO, dataset=policy, checkpoint=sft),
        onward(
            "ppo",
            "ppo",
            "better answers, rewarded by the reward model",
            PPO,
            dataset=policy,
            checkpoint=sft,
            extra={"reward": reward},
        ),
    ]


DATASETS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("text", "demo", "documents of a small world", {}),
    ("chat", "demo-chat", "questions with answers", {}),
    ("policy", "demo-policy", "questions to practise on", {}),
    ("held-out", "demo-eval", "questions held out", {"split": "none"}),
)
"""By what follows the prefix: the starter source, what it is, and settings."""

TOKENIZER: dict[str, Any] = {"type": "bpe", "vocab_size": 2_048}
"""Then every word of the text is one token, and none is misspelt."""
PRETRAIN: dict[str, Any] = {
    "preset": "tiny-llama",
    "layers": 2,
    "steps": 5_000,
    "batch_size": 2,
    "eval_every": 1_200,
    "eval_tokens": 16_384,
    "checkpoint_every": 1_200,
    "sample_every": 1_200,
}
"""Two layers learn these facts sooner than four do, and many small steps sooner than few large ones."""
SFT: dict[str, Any] = {
    "steps": 1_100,
    "batch_size": 4,
    "lr": 1.5e-3,
    "eval_every": 200,
    "eval_tokens": 10_000,
    "checkpoint_every": 400,
    "sample_every": 400,
}
REWARD: dict[str, Any] = {"steps": 400, "lr": 1e-3, "eval_every": 100, "threads": 1}
"""On answers as the policy gives them, and long enough to tell right ones from wrong ones of the same style."""
JUDGED: dict[str, Any] = {"n": 10, "keep": "ranking", "reward": "world", "max_new_tokens": 32, "threads": 1}
DPO: dict[str, Any] = {
    "epochs": 3,
    "lr": 2e-4,
    "pairs": "best_worst",
    "sft_term": 4.0,
    "eval_every": 50,
    "eval_prompts": 64,
    "checkpoint_every": 50,
    "sample_every": 100,
    "threads": 1,
}
POLICY: dict[str, Any] = {
    "max_new_tokens": 32,
    "checkpoint_every": 10,
    "sample_every": 20,
    "max_kl": 5.0,
    "max_length_ratio": 3.0,
    "kl_budget": 1.5,
    "threads": 1,
}
"""The preferred answers are whole sentences, and longer than what the SFT model mostly says."""
GRPO: dict[str, Any] = {
    **POLICY,
    "reward": "world",
    "steps": 100,
    "batch_size": 16,
    "group": 8,
    "lr": 2e-4,
    "beta": 0.01,
    "eval_every": 10,
}
PPO: dict[str, Any] = {
    **POLICY,
    "steps": 25,
    "batch_size": 128,
    "passes": 1,
    "minibatches": 4,
    "lr": 1e-4,
    "value_lr": 3e-4,
    "kl": 0.05,
    "ptx": 0.0,
    "eval_every": 5,
    "checkpoint_every": 5,
}
"""So few steps that it has the style, and has not begun to gain reward where the reward model is wrong."""

MODELS = ("base", "sft", "dpo", "grpo", "ppo")
"""The rows of the table at the end, by what follows the prefix."""


def perform(
    workspace: Workspace, steps: Sequence[Step], watch: Callable[[Step, RunDir], Any], *, cpu_width: int = 1
) -> list[RunDir]:
    """Do steps in their order, each unless it has been done, and watch each to its end; their runs.

    While one is at work, the next one is begun, unless it needs what that makes. Raises UserError when one fails, or
    when someone stops it.
    """
    made = []
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        run = begin(workspace, step, cpu_width=cpu_width)
        if after is not None and step.name not in needs(after):
            begin(workspace, after, cpu_width=cpu_width)
        watch(step, run)
        if not is_done(run):
            raise UserError(f"{step.name} is {run.status()}.", "`workbench demo` goes on with it.", exit_code=1)
        made.append(run)
    return made


def begin(workspace: Workspace, step: Step, *, cpu_width: int = 1) -> RunDir:
    """The run of a step, launched, or started again where it was interrupted, unless it is at work or done."""
    run = known_run(workspace, step)
    if run is None:
        settings = dict(step.settings)
        return runs.launch(workspace, step.stage, step.name, settings, cpu_width=cpu_width, **step.parents)
    if not is_done(run) and not run.alive():
        runs.start(run, cpu_width=cpu_width)
    return run


def needs(step: Step) -> set[str]:
    """The names of what a step begins with."""
    parents = {**step.parents}
    return {*parents.pop("extra", {}).values(), *parents.pop("checkpoints", ()), *parents.values()}


def known_run(workspace: Workspace, step: Step) -> RunDir | None:
    """The newest run of a step, or None when it has none, or another one made what has its name."""
    for run in list_runs(workspace):
        try:
            spec = run.spec()
        except UserError:
            continue
        if (spec.stage, spec.name) == (step.stage, step.name):
            failed = run.status() == "failed" and step.stage in ("build", "tokenizer", "evaluate")
            return None if failed else run
    return None


def is_done(run: RunDir) -> bool:
    """Whether a run has come to its end, or has paused itself, of which its phase says why: its checkpoints stand."""
    state = run.state()
    status = run.status(state)
    return status == "finished" or (status == "paused" and bool(state.phase))


def measuring(workspace: Workspace, seed: int = 0, prefix: str = "demo") -> list[Step]:
    """The last two steps: every model on the held-out questions, and on held-out text."""
    models = [best(workspace, f"{prefix}-{model}") for model in MODELS]
    answers = {"split": "all", "max_records": None, "examples": 0, "probes": True, "max_new_tokens": 32, "seed": seed}
    return [
        Step(
            "evaluate",
            f"{prefix}-answers",
            "every model answers what was held out",
            {**answers, "slots": 128},
            {"dataset": f"{prefix}-held-out", "checkpoints": models, "extra": {"reference": f"{prefix}-sft"}},
        ),
        Step(
            "evaluate",
            f"{prefix}-bits",
            "every model reads text that was held out",
            {"split": "val", "seed": seed},
            {"dataset": f"{prefix}-text", "checkpoints": models},
        ),
    ]


def best(workspace: Workspace, name: str) -> str:
    """The checkpoint of a run that counts: of a policy the best held-out reward within its KL budget, else the last."""
    run = find_run(workspace, name)
    spec = run.spec()
    if spec.stage not in ("grpo", "ppo"):
        return name
    budget = float(spec.settings["kl_budget"] or spec.settings["max_kl"])
    found = best_checkpoint(run, Best("val/reward", highest=True, within=("val/kl", budget)))
    return f"{name}@{found.step}" if found else name


class Line(NamedTuple):
    """A row of the table: what a model has become. KL in nats an answer, from the SFT model."""

    model: str
    checkpoint: str
    bits_per_byte: float | None
    exact: float | None
    preferred: float | None
    kl: float | None
    answers: list[dict[str, str]]
    """The probe prompts as this model answers them."""


def table(answers: RunDir, bits: RunDir) -> list[Line]:
    """What the two evaluations found, model by model."""
    asked, read = read_evaluation(answers), read_evaluation(bits)
    return [_line(model, asked, read, place) for place, model in enumerate(MODELS)]


def _line(model: str, asked: Evaluation, read: Evaluation, place: int) -> Line:
    row, text = asked.rows[place], read.rows[place]
    shares = {name: row.shares[name].value for name in ("exact", "preferred") if name in row.shares}
    return Line(
        model=model,
        checkpoint=row.checkpoint,
        bits_per_byte=text.figures.get("bits_per_byte"),
        exact=shares.get("exact"),
        preferred=shares.get("preferred"),
        kl=None if model == "base" else row.figures.get("kl"),
        answers=[{"prompt": answer.prompt, "text": answer.text} for answer in row.answers],
    )
