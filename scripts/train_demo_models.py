"""Trains the bundled demo models. Placeholder command line, see demo_training."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import torch  # noqa: E402
from demo_training import data, encoders, vae  # noqa: E402
from demo_training.trainer import Budget  # noqa: E402

p = argparse.ArgumentParser()
p.add_argument("--stage"), p.add_argument("--minutes", type=float, default=1e9), p.add_argument("--work-dir")
p.add_argument("--threads", type=int, default=1)
a = p.parse_args()
torch.set_num_threads(a.threads)
Path(a.work_dir).mkdir(exist_ok=True)
if a.stage == "data":
    data.prepare(a.work_dir, 24000)
if a.stage == "vae":
    vae.train(a.work_dir, Budget(minutes=a.minutes))
if a.stage == "encoders":
    encoders.train(a.work_dir, Budget(minutes=a.minutes))
