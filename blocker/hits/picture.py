"""A report as a PNG picture, drawn by resvg with a font that is installed with Blocker.

Fonts of the machine are not looked at: a bare one has none, and a picture must not depend on where it was made.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import resvg_py

# Sharp on a screen of twice the usual density, and in print at 15 cm.
ZOOM = 2.0


def png(svg: str) -> bytes:
    """The picture. Cost: about 50 ms."""
    with as_file(files("font_lato") / "files") as fonts:
        return resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=ZOOM,
            skip_system_fonts=True,
            font_files=[str(fonts / name) for name in ("Lato-Regular.ttf", "Lato-Bold.ttf")],
            font_family="Lato",
            sans_serif_family="Lato",
        )
