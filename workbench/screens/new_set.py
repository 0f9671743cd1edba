"""The form that makes a label set from a dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.widgets import Static

from stages.store.datasets import Kind, list_datasets
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.names import check_name
from stages.store.records import Record
from stages.store.specs.base import about
from workbench.display import content
from workbench.judging.label_sets import decoded, make_set
from workbench.keys import bind
from workbench.runs import unique_name
from workbench.screens.base import PlaceScreen
from workbench.screens.launch import heading
from workbench.widgets.form import SpecForm, choice_field, text_field

KINDS = ("preference", "prompts", "chat")
PAGE = 2_000
"""Records asked for at once."""


class NewSet(msgspec.Struct, kw_only=True, frozen=True):
    """How a set is judged."""

    judged_by: Annotated[
        Literal["by kind", "rank", "pair", "rate", "write"],
        about("rank: an order with ties; pair: the better of two; rate: 1 to 7; write: the answer."),
    ] = "by kind"
    people: Annotated[int, about("People who judge each prompt.", unit="people", ge=1, le=100)] = 1
    asked_again: Annotated[
        float,
        about(
            "Share of the prompts that are silently asked again: how far people agree with themselves.", ge=0, le=0.5
        ),
    ] = 0.05
    take_rankings: Annotated[bool, about("Take rankings that the dataset brings as labels of its annotators.")] = True


class NewSetScreen(PlaceScreen):
    """Calls `made` with the name of the set."""

    PLACE = "rank"
    CSS_PATH = ["launch.tcss", "../widgets/form.tcss"]
    AUTO_FOCUS = "LineInput"
    BINDINGS = [
        bind("new_set.make", "enter,ctrl+r", "make", "Make", "Make the set."),
        bind("new_set.back", "escape", "back", "Back", "Leave the form; nothing is made."),
    ]

    def __init__(self, made: Callable[[str], object]) -> None:
        super().__init__()
        self._tell_made = made
        self._suggested = ""
        """The name that the form gave, which follows the dataset until the person types another."""

    def compose_body(self) -> ComposeResult:
        found = [one for one in list_datasets(self.workbench.workspace) if one.info.kind in KINDS]
        datasets = [one.name for one in sorted(found, key=lambda one: KINDS.index(one.info.kind))]
        settings = self.workbench.settings.labels
        self._suggested = name = self._name_for(datasets[0] if datasets else "labels")
        extra = [
            text_field("name", "Name of the set.", default=name),
            choice_field("dataset", datasets, "Preferences to judge; prompts or conversations to answer."),
        ]
        yield heading("Make a set to judge", "makes it")
        first = {"people": settings.people, "asked_again": settings.repeat_share}
        yield SpecForm(NewSet, first, extra=extra)
        yield Static(id="trouble", classes="error")

    def _name_for(self, dataset: str) -> str:
        try:
            return unique_name(self._taken(), dataset)
        except UserError as error:  # labels that cannot be read
            self.workbench.show_error(error)
            return dataset

    @on(SpecForm.Changed)
    def _follow(self, event: SpecForm.Changed) -> None:
        rows = self.query_one(SpecForm).rows
        if event.name == "dataset" and rows["name"].text == self._suggested:
            self._suggested = rows["name"].text = self._name_for(rows["dataset"].text)

    def action_back(self) -> None:
        self.dismiss()

    @on(SpecForm.Submitted)
    def action_make(self) -> None:
        form = self.query_one(SpecForm)
        values = form.read()
        if values is not None:
            settings, extra = form.split(values)
            self._make(NewSet(**settings), extra["name"], extra["dataset"])

    @work(exclusive=True, group="make")
    async def _make(self, settings: NewSet, name: str, dataset: str) -> None:
        form, field = self.query_one(SpecForm), "name"
        try:
            check_name(name, "name of a label set")
            if name in await asyncio.to_thread(self._taken):
                raise UserError(f"There is already a label set {name!r}.", "Choose another name.")
            field = "dataset"
            if not dataset:
                raise UserError("There are no preferences, prompts or conversations yet.", "Build some in Data.")
            await self._fill(settings, name, dataset)
        except UserError as error:
            form.blame(field, error)
            return
        self.dismiss()
        self._tell_made(name)

    async def _fill(self, settings: NewSet, name: str, dataset: str) -> None:
        records: list[Record] = []
        start, total = 0, 1
        while start < total:
            page = await self.workbench.desk.ask("records.slice", dataset=dataset, start=start, count=PAGE)
            records += decoded(page["kind"], page["records"])
            start, total = start + PAGE, page["total"]
            told = f"{len(records):,} of {total:,} records"
            self.query_one("#trouble", Static).update(content(told))
        await asyncio.to_thread(self._store, settings, name, dataset, page["kind"], records)

    def _store(self, settings: NewSet, name: str, dataset: str, kind: Kind, records: list[Record]) -> None:
        with open_labels(self.workbench.workspace.labels) as labels:
            make_set(
                labels,
                name,
                kind,
                records,
                dataset,
                mode=None if settings.judged_by == "by kind" else settings.judged_by,
                people=settings.people,
                repeat_share=settings.asked_again,
                rankings=settings.take_rankings,
            )

    def _taken(self) -> list[str]:
        path = self.workbench.workspace.labels
        if not path.is_file():
            return []
        with open_labels(path) as labels:
            return [one.name for one in labels.sets()]
