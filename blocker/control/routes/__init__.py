"""The routes, one file for each group; each has a `router` or a function that makes it from what it serves."""
