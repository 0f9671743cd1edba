"""What every screen shares: the bar of places, the bar of keys, polling that stops when nobody looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.console import RenderableType
from textual import on
from textual._context import NoActiveAppError, active_message_pump
from textual.actions import SkipAction
from textual.app import App, ComposeResult, ScreenStackError
from textual.binding import Binding
from textual.content import Content
from textual.css.query import NoMatches
from textual.dom import NoScreen
from textual.events import Key
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.style import Style
from textual.timer import Timer
from textual.widget import MountError, Widget
from textual.worker import Worker, WorkerFailed, WorkType

from workbench.display import line, looks_same
from workbench.keys import bind
from workbench.widgets.filter_field import Filterable, clear_filters, open_filter

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

PLACES = (("home", "Home"), ("data", "Data"), ("runs", "Runs"), ("rank", "Rank"), ("chat", "Chat"))
"""The modes of the app, in order, with the names by which the bar shows them."""

WIDTHS = [(0, "-tiny"), (60, "-narrow"), (100, "-wide"), (160, "-very-wide")]
HEIGHTS = [(0, "-flat"), (16, "-low"), (32, "-tall")]
"""Classes a screen wears by its size: `-tiny` or `-flat` means too small to work in."""


class PlaceBar(Widget):
    """One line: the places with the keys that lead there, the current one marked, and at the right where one is.

    The keys are left out while a text field takes letters for itself.
    """

    def __init__(self, place: str) -> None:
        super().__init__()
        self.set_reactive(PlaceBar.auto_links, False)  # or links are all drawn in one colour
        self.place = place
        self._trail = Content()

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def show_trail(self, trail: Content) -> None:
        """Say at the right end where one is: names of a lineage, of a run, a path."""
        if not looks_same(trail, self._trail):
            self._trail = trail
            self.refresh()

    def render(self) -> Content:
        keys = {active.binding.id: active.binding for active in self.screen.active_bindings.values()}
        parts = (self._place(place, label, keys.get(f"app.{place}")) for place, label in PLACES)
        places = Content.assemble(" ", *parts)
        room = max(0, self.size.width - places.cell_length - 1)
        trail = self._trail.truncate(room, ellipsis=True)
        return Content.assemble(places, " " * (room - trail.cell_length), trail)

    def _place(self, place: str, label: str, binding: Binding | None) -> Content:
        here = place == self.place
        text = Content.styled(label, "bold $primary" if here else "")
        if binding is not None:
            text = Content.assemble((self.app.get_key_display(binding), "bold $accent"), " ", text)
        text = text.stylize(Style.from_meta({"@click": f"app.go('{place}')"}))
        return Content.assemble(("▌", "$primary") if here else " ", text, " ")


class KeyBar(Widget):
    """One line: the keys that act where one is. A click on one does what it does.

    Where there is no room for all, those of the app stay (the help among them, which names the rest).
    Below a dialog it is empty: no key of the screen acts there, and the dialog names its own.
    One widget that draws itself: Textual's Footer makes two a key, anew whenever the focus moves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_reactive(KeyBar.auto_links, False)

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        screen = cast("WorkbenchScreen[Any]", self.screen)
        if not screen.is_active:
            return Content()
        here: dict[str, Content] = {}
        everywhere: dict[str, Content] = {}
        last: dict[str, Content] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            keys = everywhere if active.node is self.app else last if binding.id == FILTER_KEY.id else here
            offered = active.enabled and not (active.node is screen and not screen.offers(binding.action))
            offered = offered and (keys is not last or screen.filterable is not None)
            if binding.show and offered and binding.action not in keys:
                text = Content.assemble((self.app.get_key_display(binding), "bold $accent"), f" {binding.description}")
                click = Style.from_meta({"@click": f"screen.press({binding.key!r})"})
                keys[binding.action] = text.stylize(click)
        shown, kept = [*here.values(), *last.values()], list(everywhere.values())
        while shown and 1 + sum(part.cell_length + 2 for part in shown + kept) - 2 > self.size.width:
            shown.pop()
        return Content.assemble(" ", Content("  ").join(shown + kept))


FILTER_KEY = bind(
    "list.filter",
    "slash",
    "filter",
    "Filter",
    "Show only what has the words you type; escape shows all.",
    priority=True,  # what is typed after it in the same packet belongs into the field
)


GONE = (NoMatches, NoScreen, ScreenStackError, MountError, NoActiveAppError)
"""What Textual raises where something is looked for, or put, on a screen that is no longer there."""


class Leavable(Screen[ScreenResultType]):
    """A screen that people leave while it waits for something: what its workers then no longer find is no mistake."""

    @property
    def left(self) -> bool:
        """Whether it is on no stack of screens any more, or the app takes all of them down."""
        try:
            app = self.app
        except NoActiveAppError:
            return True
        return not app.is_running or not any(self in stack for stack in app._screen_stacks.values())

    def run_worker(self, work: WorkType[Any], *args: Any, **options: Any) -> Worker[Any]:
        """As Textual's; a worker that goes on after its screen was left ends with it."""
        if not callable(work):
            return super().run_worker(work, *args, **options)
        while_there = self._in_thread(work) if options.get("thread") else self._in_loop(work)
        return super().run_worker(while_there, *args, **options)

    def _in_loop(self, work: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
        async def while_there() -> Any:
            with self._until_left():
                return await work()

        return while_there

    def _in_thread(self, work: Callable[[], Any]) -> Callable[[], Any]:
        def while_there() -> Any:
            with self._until_left():
                return work()

        return while_there

    @contextmanager
    def _until_left(self) -> Iterator[None]:
        try:
            yield
        except GONE:
            if not self.left:
                raise


def is_late(error: BaseException, app: App[Any]) -> bool:
    """Whether `error` only says that something is gone from a screen that was left, or from an app that ends.

    Handlers and drawing meet that too: while a screen is taken down, its widgets go one by one, in no order.
    """
    error = error.error if isinstance(error, WorkerFailed) else error
    if not isinstance(error, GONE):
        return False
    pump = active_message_pump.get(app)
    nodes = pump.ancestors_with_self if isinstance(pump, Widget) else []
    return not app.is_running or any(isinstance(node, Leavable) and node.left for node in nodes)


class Sized(Leavable[ScreenResultType]):
    """A screen with size classes, which asks for a larger window where it cannot be worked in."""

    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS

    def take_size(self) -> None:
        """Have the classes of the size before the first widget is mounted: one that mounts late misses a resize."""
        width, height = self.app.size
        wanted = self._get_breakpoint_classes(width, WIDTHS) | self._get_breakpoint_classes(height, HEIGHTS)
        self.remove_class(*{name for _, name in (*WIDTHS, *HEIGHTS)} - wanted)
        self.add_class(*wanted)

    def on_screen_resume(self) -> None:
        """The window may have changed its size while another screen was on top."""
        self.take_size()

    @property
    def too_small(self) -> bool:
        return self.has_class("-tiny") or self.has_class("-flat")

    def render(self) -> RenderableType:
        """What shows when the style sheet hides all else because the window is too small."""
        if not self.too_small:
            return super().render()
        size = self.app.size
        return Content(f"Enlarge the window: {size.width}×{size.height}, not 60×16.")


class Filtering(Sized[ScreenResultType]):
    """A screen on which `/` filters the list that has the focus, or the first, and escape shows all again."""

    @property
    def filterable(self) -> Filterable | None:
        """The list that `/` filters just now; None while one types text."""
        if self.focused is not None and self.focused.check_consume_key("slash", "/"):
            return None
        if isinstance(self.focused, Filterable) and self.focused.has_entries:
            return self.focused
        lists = (found for found in self.walk_children(Filterable) if found.has_entries)
        return next((found for found in lists if found.filter_text or _is_shown(found)), None)

    async def action_filter(self) -> None:
        """Type words that what is shown must have."""
        if (target := self.filterable) is None:
            raise SkipAction()
        await open_filter(target)

    @on(Filterable.FieldLeft)
    def _field_left(self, event: Filterable.FieldLeft) -> None:
        event.target.focus()

    def key_escape(self, event: Key) -> None:
        if clear_filters(self):
            event.stop()


def _is_shown(widget: Widget) -> bool:
    return all(node.display for node in widget.ancestors_with_self if isinstance(node, Widget))


class WorkbenchScreen(Filtering[ScreenResultType]):
    """A screen of the app: the app by its type, and polling of what is on screen only."""

    BINDINGS = [FILTER_KEY]

    def __init__(self) -> None:
        super().__init__()
        self._polls: list[tuple[Timer, Callable[[], object]]] = []

    @property
    def workbench(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)

    def offers(self, action: str) -> bool:
        """Whether the bar of keys is to name `action` just now. The key acts either way, if only to say why not."""
        return True

    def action_press(self, key: str) -> None:
        """Do what a key does: for clicks on the bar of keys."""
        self.app.simulate_key(key)

    def poll(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` now and every `seconds` while this screen is the one on top.

        The callback must be quick; what reads files belongs in a thread worker that it starts.
        """
        timer = self.set_interval(seconds, callback, pause=not self.is_current)
        self._polls.append((timer, callback))
        if self.is_current:
            self.call_later(callback)
        return timer

    def busy_with(self, group: str) -> bool:
        """Whether a worker of this group is still at it, so that another need not begin."""
        return any(worker.group == group and worker.is_running for worker in self.workers)

    def on_screen_suspend(self) -> None:
        self._draw_keys()
        for timer, _ in self._polls:
            timer.pause()

    def _draw_keys(self) -> None:
        for bar in self.query(KeyBar):
            bar.refresh()

    def on_screen_resume(self) -> None:
        self._draw_keys()
        for timer, callback in self._polls:
            timer.resume()
            self.call_later(callback)


class PlaceScreen(WorkbenchScreen[None]):
    """A screen in one of the places. Subclasses set PLACE and yield their widgets from `compose_body`."""

    PLACE: ClassVar[str] = ""

    def compose(self) -> ComposeResult:
        self.take_size()
        yield PlaceBar(self.PLACE)
        yield from self.compose_body()
        yield from self.compose_foot()
        yield KeyBar()

    def compose_body(self) -> ComposeResult:
        """The widgets between the bar and the footer."""
        yield from ()

    def compose_foot(self) -> ComposeResult:
        """What stands right above the bar of keys, on screens of many kinds."""
        yield from ()

    def show_trail(self, *names: str) -> None:
        """Say at the right end of the bar where one is; `names` are foreign text."""
        parts: list[Content] = []
        for name in names:
            parts += [Content.styled(" › ", "$text-muted")] if parts else []
            parts.append(line(name, "$text-muted"))
        self.query_one(PlaceBar).show_trail(Content.assemble(*parts, " "))


class Dialog(ModalScreen[ScreenResultType], Filtering[ScreenResultType]):
    """A question or a note over the screen. Escape closes it with None."""

    AUTO_FOCUS = "Button, OptionList, Input, VerticalScroll"
    BINDINGS = [
        bind("app.jump", "ctrl+g", "app.jump", "Jump", "Letters on all that takes the focus.", show=False),
        FILTER_KEY,
    ]

    def key_escape(self, event: Key) -> None:
        event.stop()
        if not clear_filters(self):
            self.dismiss(None)
