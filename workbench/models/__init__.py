"""Models before and after training: sizes, costs, cards, lineage."""
