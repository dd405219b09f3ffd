"""The checkout that runs: its folder and its commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def git_commit(digits: int = 40) -> str:
    """Commit of the checkout, "-dirty" behind it when files differ, "none" outside git."""
    try:
        command = ["git", "describe", "--always", "--dirty", f"--abbrev={digits}", "--exclude=*"]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return done.stdout.strip() or "none"
