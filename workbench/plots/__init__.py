"""Curves: read, held in constant memory, drawn in the terminal and as SVG."""
