"""Settings files are strict, merge key by key, and the example in the root tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli

from stages.store import strict
from stages.store.errors import UserError
from stages.store.specs import STAGES
from stages.store.workspace import installation_root
from workbench.settings import FILE, TABLES, Settings, load_settings, read_file, user_file
from workbench.settings_example import example


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_text(text, "utf-8")
    return path


def test_without_files_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(tmp_path) == Settings()


def test_the_nearest_file_comes_over_the_users_key_by_key(tmp_path: Path) -> None:
    own = write(
        user_file().parent, '[app]\ntheme = "light"\n[pretrain]\nlr = 0.002\nsteps = 10\n[keys]\n"app.quit" = "x"'
    )
    write(tmp_path / "project", "[queue]\ncpu_width = 9")
    near = write(tmp_path / "project" / "deep", "[pretrain]\nsteps = 20\n[chat]\ntop_k = 7")
    settings = load_settings(tmp_path / "project" / "deep" / "below")
    assert settings.stage("pretrain") == {"lr": 0.002, "steps": 20}
    assert settings.app.theme == "light"
    assert settings.chat.top_k == 7
    assert settings.keys == {"app.quit": "x"}
    assert settings.queue.cpu_width == 1, "only the nearest file upward counts"
    assert settings.files == (near, own)


def test_the_users_own_file_is_not_read_twice() -> None:
    own = write(user_file().parent, "[queue]\ncpu_width = 3")
    assert load_settings(own.parent).files == (own,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[app]\ntheme = "drak"', "'app.theme' is 'drak'; expected one of dark, light, ansi. Did you mean 'dark'?"),
        ("[ap]\n", "unknown table 'ap'. Did you mean 'app'?"),
        ("theme = 1", "unknown key 'theme'."),
        ("app = 1", "'app' is 1; expected a table, [app]."),
        ("[pretrain]\nlr = 3", "'pretrain.lr' is 3; expected a number from 0 to 1, or nothing."),
        ("[pretrain]\nlayer = 3", "unknown key 'pretrain.layer'. Did you mean 'layers'?"),
        ("[queue]\ncpu_width = '2'", "'queue.cpu_width' is '2'; expected a whole number from 1 to 1,024."),
        ("[keys]\nquit = 3", "'keys.quit' is 3; expected the name of a key"),
        ("[queue\n", "(at line 1, column 7)"),
        ("[build]\nsplit = 'half'", "'build.split' is 'half'; expected"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_settings(tmp_path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert message in line
    assert "\n" not in line
    assert caught.value.exit_code == 2


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe[app]")
    with pytest.raises(UserError, match="not UTF-8"):
        load_settings(tmp_path)


def test_ids_of_bindings_may_be_written_with_and_without_quotes(tmp_path: Path) -> None:
    write(tmp_path, '[keys]\nruns.stop = "x"\n"app.quit" = "f10"')
    assert load_settings(tmp_path).keys == {"runs.stop": "x", "app.quit": "f10"}


@pytest.mark.parametrize(("value", "expected"), [("data", "{folder}/data"), ("/srv/data", "/srv/data"), ("~/w", "~/w")])
def test_the_workspace_is_relative_to_its_file(tmp_path: Path, value: str, expected: str) -> None:
    write(tmp_path, f'[paths]\nworkspace = "{value}"')
    wanted = Path(expected.format(folder=tmp_path)).expanduser()
    assert load_settings(tmp_path / "elsewhere").paths.workspace == str(wanted)


def test_every_stage_has_a_table() -> None:
    for stage in STAGES:
        assert Settings().stage(stage) == {}


def shipped() -> str:
    return (installation_root() / FILE).read_text("utf-8")


def test_the_shipped_example_is_what_the_specs_say() -> None:
    assert shipped() == example(), "run `make settings`"


def uncommented() -> str:
    """The example as it is once somebody has removed every # in front of a key."""
    return re.sub(r"^#(?=\S)", "", shipped(), flags=re.MULTILINE)


def test_the_shipped_example_changes_nothing() -> None:
    content = tomli.loads(shipped())
    assert list(content) == ["paths", "app", "keys", *list(TABLES)[2:], *STAGES]
    assert not any(content.values())


def test_the_shipped_example_shows_every_default() -> None:
    content = tomli.loads(uncommented())
    for table, spec in {**TABLES, **STAGES}.items():
        shown = {f.name: content[table][f.name] for f in strict.fields(spec)}
        defaults = {f.name: f.default for f in strict.fields(spec) if not f.required and f.default is not None}
        assert shown | defaults == shown


def test_the_shipped_example_explains_every_key() -> None:
    prose = " ".join(line.removeprefix("# ") for line in shipped().splitlines())
    for spec in {**TABLES, **STAGES}.values():
        for field in strict.fields(spec):
            assert field.description in prose


def test_the_commented_keys_of_the_example_would_be_accepted(tmp_path: Path) -> None:
    write(tmp_path, uncommented())
    settings = load_settings(tmp_path)
    assert settings.stage("pretrain")["layers"] == 4
    assert settings.keys


def test_a_file_nested_beyond_reason_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "workbench.toml"
    path.write_text("[app]\nx = " + "[" * 5_000)
    with pytest.raises(UserError, match="Expected TOML"):
        read_file(path)
