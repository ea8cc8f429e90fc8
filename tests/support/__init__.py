"""What several tests use: small subjects, models and outputs, references, processes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
