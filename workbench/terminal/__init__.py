"""What goes to the terminal, and what comes from it: only the cells that differ, in few codes; keys in their turn."""
