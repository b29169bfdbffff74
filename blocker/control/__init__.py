"""The HTTP control plane: checks, lists, health, metrics, the stop page and its own documentation."""
