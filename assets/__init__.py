"""What ships with the app: starter data, model presets and chat templates. Nothing is read at import."""

from pathlib import Path

ROOT = Path(__file__).parent
