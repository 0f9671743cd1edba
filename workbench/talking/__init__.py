"""What the app needs to talk with models: those it opens itself, those it asks, those it serves."""
