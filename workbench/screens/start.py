"""The form that starts a training run, with what the run will cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.timer import Timer
from textual.widgets import Static
from textual.worker import get_current_worker

from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.presets import list_presets, load_preset
from stages.store.rundir import RunDir
from stages.store.sizes import parameter_count
from stages.store.specs import spec_of
from stages.store.specs.pretrain import Pretrain
from stages.store.strict import Field
from stages.store.tokenizers import list_tokenizers
from workbench.display import content
from workbench.keys import bind
from workbench.models.estimate import Estimate, default_parents, estimate
from workbench.models.times import Speeds, speeds, training_time
from workbench.plots.picture import figure
from workbench.runs import run_names, unique_name
from workbench.screens.launch import LaunchScreen, heading
from workbench.screens.pick import Pick
from workbench.widgets.form import SpecForm, choice_field, text_field
from workbench.widgets.side_by_side import flowed
from workbench.wording import operations

PATIENCE = 0.15
"""Seconds without a key after which the cost is reckoned anew."""

TITLES = {
    "pretrain": "Pre-train a model",
    "bert": "Pre-train an encoder to fill blanks (BERT)",
    "t5": "Pre-train an encoder-decoder to fill spans (T5)",
    "transformer_xl": "Pre-train a model that remembers (Transformer-XL)",
    "sft": "Tune a model on conversations",
    "seq2seq": "Teach a T5 to write answers",
    "classify": "Teach a model to label texts",
    "distill": "Distil a larger model into a smaller one",
    "reward": "Train a reward model on preferences",
    "dpo": "Tune a model on preferences, without a reward model (DPO)",
    "grpo": "Improve a model by rewards of groups of answers (GRPO)",
    "ppo": "Improve a model by rewards (PPO)",
}


class StartScreen(LaunchScreen):
    """Every setting of `stage`, the dataset and the tokenizer; `values` fill the fields they name."""

    PLACE = "runs"
    CSS_PATH = ["launch.tcss", "../widgets/form.tcss", "start.tcss"]
    BINDINGS = [bind("start.estimate", "f2", "presets", "Presets", "The shapes there are, to take one.")]

    def __init__(self, stage: str, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.STAGE = stage  # type: ignore[misc]  # one screen serves every training stage
        self._reckoning: Timer | None = None
        self.speeds: Speeds | None = None
        """Of this machine, once they have been read."""
        self.HEADING = TITLES[stage]  # type: ignore[misc]  # as above

    def compose_body(self) -> ComposeResult:
        yield heading(self.HEADING)
        extra = self.extra_fields()
        values = {**self.workbench.settings.stage(self.STAGE), **self.given}
        with Horizontal(id="start-body"):
            yield SpecForm(spec_of(self.STAGE), values, extra=extra, hidden=self.HIDDEN, crowded=True)
            with Vertical(id="start-cost", classes="pane"):
                yield Static(id="cost")
        yield Static(id="trouble", classes="error")

    def extra_fields(self) -> list[Field]:
        workspace = self.workbench.workspace
        datasets = [found.name for found in list_datasets(workspace) if found.info.kind == "text"]
        tokenizers = [found.name for found in list_tokenizers(workspace)]
        self.given["dataset"], self.given["tokenizer"] = default_parents(workspace, self.given)
        preset = self.given.get("preset") or self.workbench.settings.stage(self.STAGE).get("preset") or "tiny"
        stem = f"{self.given['dataset'][:40]}-{preset}" if self.given["dataset"] else str(preset)
        self.given["name"] = unique_name(run_names(workspace), str(self.given.get("name") or stem))
        return [
            text_field("name", "Name of the run."),
            choice_field("dataset", datasets, "Text it learns from."),
            choice_field("tokenizer", tokenizers, "How text becomes tokens."),
        ]

    def on_mount(self) -> None:
        self.query_one("#start-cost").border_title = "what it costs"
        self._show_cost()
        self._read_speeds()

    @work(thread=True)
    def _read_speeds(self) -> None:
        """Find out how fast this machine trains, which takes files to be read."""
        found = speeds(self.workbench.workspace)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._know_speeds, found)

    def _know_speeds(self, found: Speeds) -> None:
        self.speeds = found
        if self.is_attached:
            self._show_cost()

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        mistake = super().check(settings, extra)
        if mistake is not None:
            return mistake
        if extra["name"] in run_names(self.workbench.workspace):
            return "name", UserError(f"There is already a run {extra['name']!r}.", "Choose another name.")
        return self.check_parents(settings, extra)

    def check_parents(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        """A mistake in what the model is made from, with the field it stands at."""
        for role, advice in (("dataset", "Build one first."), ("tokenizer", "Train one first.")):
            if not extra[role]:
                return role, UserError(f"There is no {role} yet.", advice)
        try:
            estimate(self.workbench.workspace, settings, extra["dataset"], extra["tokenizer"], self.STAGE)
        except UserError as error:
            return ("heads" if "heads" in error.title else "preset"), error
        return None

    def launched(self, run: RunDir) -> None:
        self.workbench.open_run(run)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Presets are offered where the form asks for one."""
        if action == "presets":
            return any("preset" in form.rows for form in self.query(SpecForm))
        return super().check_action(action, parameters)

    def action_presets(self) -> None:
        """Let one be chosen of the presets that the stage can train, and take its name into the form."""
        spec = spec_of(self.STAGE)
        assert issubclass(spec, Pretrain)
        models = {name: model for name in list_presets() if (model := load_preset(name)).kind == spec.KIND}
        sizes = {name: figure(parameter_count(model).total) for name, model in models.items()}
        told = {f"{name:<20}{size:>8} parameters": name for name, size in sizes.items()}

        def chosen(text: str | None) -> None:
            if text is not None:
                self.query_one(SpecForm).rows["preset"].text = told[text]

        self.app.push_screen(Pick("Which shape?", list(told)), chosen)

    @on(SpecForm.Changed)
    def _changed(self, event: SpecForm.Changed) -> None:
        """Reckon anew once the typing has paused: it reads files. A name costs nothing."""
        if event.name != "name":
            if self._reckoning is not None:
                self._reckoning.stop()
            self._reckoning = self.set_timer(PATIENCE, self._show_cost)

    def _show_cost(self) -> None:
        try:
            form, cost = self.query_one(SpecForm), self.query_one("#cost", Static)
        except NoMatches:
            return  # a field told of its first value while the screen was still being made
        settings, extra = form.split(form.peek())
        wide = self.size.width >= 100
        try:
            lines = self.cost_lines(settings, extra, wide=wide)
        except UserError as error:
            cost.update(content(str(error), "$text-muted"))
            return
        cost.update(Content("\n").join(lines) if wide else flowed(lines, cost.content_size.width, gap="   "))

    def cost_lines(self, settings: dict[str, Any], extra: dict[str, Any], *, wide: bool) -> list[Content]:
        """What the run costs, a figure a line; UserError where that cannot be told."""
        workspace = self.workbench.workspace
        found = estimate(workspace, settings, extra["dataset"], extra["tokenizer"], self.STAGE)
        takes = training_time(self.speeds, found.flops, found.parameters) if self.speeds else ""
        return _lines(found, takes, wide=wide)

    def on_resize(self) -> None:
        self._show_cost()


def _lines(figures: Estimate, takes: str, *, wide: bool) -> list[Content]:
    model = figures.model
    facts = [
        ("parameters", f"{figures.parameters:,}"),
        ("shape", f"{model.layers} layers · {model.heads} heads · {model.width} wide"),
        ("context", f"{model.context:,} tokens"),
        ("vocabulary", f"{model.vocab_size:,} tokens"),
        ("memory", f"about {size_of(figures.memory)}"),
        ("will see", f"{figure(figures.tokens)} tokens"),
        ("that is", f"{figures.epochs:,.1f} × the text" if figures.epochs is not None else "—"),
        ("work", operations(figures.flops)),
        *([("takes", takes)] if takes else []),
    ]
    if not wide:
        facts = [fact for fact in facts if fact[0] in ("parameters", "memory", "will see", "that is", "takes")]
    return labelled(facts, wide=wide) + ([Content.styled(figures.warning, "$text-warning")] if figures.warning else [])


def labelled(facts: list[tuple[str, str]], *, wide: bool) -> list[Content]:
    """Names of figures with the figures; in one column when there is room for it."""
    return [
        Content.assemble(Content.styled(f"{name:<11}" if wide else f"{name} ", "$text-muted"), Content(value))
        for name, value in facts
    ]


def size_of(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
