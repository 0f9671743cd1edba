"""A person at work on a label set: what takes the place of what they had said."""

from __future__ import annotations

from textual.content import Content

from stages.store.labels import open_labels
from stages.store.workspace import Workspace
from tests.stages.store.labels.conftest import tasks
from tests.workbench.conftest import add_run
from workbench.judging.judge_lines import saved_line
from workbench.judging.labelling import Session


def test_who_ranks_a_prompt_anew_for_which_they_wrote_an_answer_has_one_ranking_of_it(workspace: Workspace) -> None:
    with open_labels(workspace.labels) as labels:
        labels.add_set("mine", "rank", tasks(2))
    session = Session(workspace, "mine", "ada")
    session.go(1)
    ranking, written = session.write("Mine.", best=True)
    session.go(1)
    assert session.earlier == ranking
    anew = session.save("rank", ranks=[4, 3, 2, 1])
    assert session.labels.labels() == [written, anew]
    session.undo()
    assert session.labels.labels() == [ranking, written]
    session.close()


def test_where_judging_begins_it_is_said_how_many_prompts_were_answered_alike(workspace: Workspace) -> None:
    add_run(workspace, "sample", "mine", result={"prompts": 5, "completions": 20, "alike": 3})
    with open_labels(workspace.labels) as labels:
        labels.add_set("mine", "rank", tasks(2))
    session = Session(workspace, "mine", "ada")
    assert saved_line(session, Content()).plain == "0 of 2 judged by you · 3 more answered alike are left out"
    session.next()
    session.save("rank", ranks=[1, 2, 3, 4])
    assert "alike" not in saved_line(session, Content()).plain
    session.close()
