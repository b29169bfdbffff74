"""Configurations of programs beside Blocker; the dashboards' are made by a program, hence a package."""
