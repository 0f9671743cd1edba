"""What is on disk: workspace, runs, specs, datasets, tokenizers, checkpoints, labels, sizes. No torch in here.

This is the only part of `stages` that the app may import.
"""
