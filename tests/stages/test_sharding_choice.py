"""How several processes hold a model when they are to choose: whole where that fits, in pieces where it does not."""

from __future__ import annotations

import pytest
import torch

from stages.store.errors import UserError
from stages.training import distributed
from stages.training.distributed import choose_sharding

CPU = torch.device("cpu")
GB = 10**9


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of four processes, each with 10 GB free, that are told what the first has chosen: here, itself."""
    monkeypatch.setattr(distributed, "several", lambda: True)
    monkeypatch.setattr(distributed, "size", lambda: 4)
    monkeypatch.setattr(distributed, "broadcast_object", lambda value: value)
    monkeypatch.setattr(distributed, "free_memory", lambda device: 10 * GB)


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("need", "chosen"), [(10 * GB, "ddp"), (10 * GB + 1, "fsdp"), (34 * GB, "fsdp")])
def test_auto_cuts_a_model_only_where_it_does_not_fit_whole(need: int, chosen: str) -> None:
    """With 2 GB of activations, 34 GB come to 2 + 32 / 4 = 10 in each of four."""
    assert choose_sharding("auto", need, 2 * GB, CPU) == chosen


@pytest.mark.usefixtures("four")
def test_what_fits_in_no_way_is_refused_with_the_figure_of_the_way_that_was_chosen() -> None:
    with pytest.raises(UserError, match=r"needs about 10\.5 GB of memory and 10\.0 GB are free"):
        choose_sharding("auto", 36 * GB, 2 * GB, CPU)


@pytest.mark.usefixtures("four")
def test_what_the_settings_say_is_not_overruled() -> None:
    assert choose_sharding("fsdp", GB, 0, CPU) == "fsdp"
    with pytest.raises(UserError, match=r"needs about 20\.0 GB"):
        choose_sharding("ddp", 20 * GB, 0, CPU)


@pytest.mark.usefixtures("four")
def test_all_do_what_the_first_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where less is free in this process than in the first, it may not choose for itself."""
    monkeypatch.setattr(distributed, "broadcast_object", lambda value: "fsdp")
    assert choose_sharding("auto", GB, 0, CPU) == "fsdp"


@pytest.mark.parametrize("setting", ["auto", "fsdp", "ddp"])
def test_a_process_that_is_alone_holds_all_of_it(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr(distributed, "free_memory", lambda device: 10 * GB)
    assert choose_sharding(setting, 10 * GB, 0, CPU) == "ddp"
    with pytest.raises(UserError, match=r"needs about 11\.0 GB"):
        choose_sharding(setting, 11 * GB, 0, CPU)
