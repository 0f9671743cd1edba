"""Human labels: what people were shown, how they judged it, and when. See `store.py` for the promises."""

from stages.store.labels.records import Candidate, Label, LabelSet, Prompt, Shown
from stages.store.labels.store import Labels, open_labels

__all__ = ["Candidate", "Label", "LabelSet", "Labels", "Prompt", "Shown", "open_labels"]
