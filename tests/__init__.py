"""Tests: a folder a room; what concerns both packages as they are used is in `whole`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
