"""People's judgements: what is before them, what they said, and how good the labels are."""
