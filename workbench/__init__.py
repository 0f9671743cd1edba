"""The app: command line and Textual screens. It reads and writes files and starts processes that do the work."""

__version__ = "0.1.0"
