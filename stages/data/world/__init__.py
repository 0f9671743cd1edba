"""The starter world: a small, deterministic, versioned source of data for every stage of a model's life.

It knows facts about invented and real things, opposites and sums; tells short stories; asks about all of these and
about contexts; and judges answers by a stated rule, so that what a model has learnt can be measured exactly. What is
held out is defined for each family (`families`). The same seed gives the same bytes everywhere; `WORLD_VERSION` changes
when they do.
"""

from stages.data.world.answers import Style, is_correct, preferred, rank, score, style_of
from stages.data.world.build import (
    DOCUMENTS,
    PREFERRED_SHARE,
    WORLD_VERSION,
    Family,
    conversations,
    families,
    preferences,
    pretraining_documents,
    questions,
)
from stages.data.world.items import PARTS, Part, Record
from stages.data.world.labelled import TASKS, Task, labelled
from stages.data.world.lessons import lesson_conversations, lesson_documents

__all__ = [
    "DOCUMENTS",
    "PARTS",
    "PREFERRED_SHARE",
    "TASKS",
    "WORLD_VERSION",
    "Family",
    "Part",
    "Record",
    "Style",
    "Task",
    "conversations",
    "families",
    "is_correct",
    "labelled",
    "lesson_conversations",
    "lesson_documents",
    "preferences",
    "preferred",
    "pretraining_documents",
    "questions",
    "rank",
    "score",
    "style_of",
]
