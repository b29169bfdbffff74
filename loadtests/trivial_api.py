"""The least that FastAPI can do, on uvicorn as the control plane runs it; started by `http_api.py` with a port."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

api = FastAPI()


@api.get("/v1/check")
async def check(url: str) -> dict[str, str]:
    """The same answer to everything."""
    return {"verdict": "allow", "canonical": url}


if __name__ == "__main__":
    uvicorn.run(api, port=int(sys.argv[1]), http="h11", loop="uvloop", access_log=False, log_level="error")
