"""A checkpoint behind an OpenAI-compatible endpoint: `workbench serve`.

`questions.py` reads what is asked, `batcher.py` answers many at once over the Engine's slots, `answers.py` writes what
is said, `app.py` joins them with HTTP, and `guard.py` stands at the door.
"""
