"""`blocker bench`: the core's figures on this machine, each beside a plain Python structure in the same run."""
