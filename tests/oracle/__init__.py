"""The oracle: a plain, slow reading of the matching rules, independent of the code it checks.

Nothing in here imports `blocker`. Where this package and the native core disagree, the written rules decide.
"""
