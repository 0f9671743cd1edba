"""The command line: `root.py` is the root, every other file a group of commands."""
