"""What a node's event loop is spared."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import gc, json, sys
from blocker.cli import management
from blocker.cli.background import favour_the_loop
before = len(gc.get_objects())
favour_the_loop()
print(json.dumps([before, len(gc.get_objects()), gc.get_freeze_count(), sys.getswitchinterval(), gc.isenabled()]))
"""


def test_what_is_loaded_is_never_searched_for_garbage_again() -> None:
    """Searching it takes a tenth of a second, in which nothing is answered."""
    told = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, check=True).stdout
    before, after, frozen, switch, enabled = json.loads(told)
    assert before > 50_000
    assert after < before / 50
    assert frozen >= before - after
    assert switch < 0.001
    assert enabled
