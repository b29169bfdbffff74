"""`python -m blocker`: the same as the `blocker` command."""

from blocker.cli import main

if __name__ == "__main__":
    main()
