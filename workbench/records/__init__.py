"""Records, datasets and tokens in words that people read and edit."""
