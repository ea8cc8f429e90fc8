"""`make full-size` on a small grid: every stage ends, and says what it took."""

import json
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.window.real_window import MISSING, has_display

STAGES = "simulate load embed expand fit decode contribution run napari score page".split()


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.skipif(not has_display(), reason=MISSING)
def test_every_stage_of_a_small_subject_is_measured(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "full_size.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["case"] for row in rows if row["unit"] == "s"] == STAGES
    assert all(0.05 < row["ours"]["median"] < 8 for row in rows if row["unit"] == "GB")
    assert all(f"| {stage} |" in done.stdout for stage in STAGES)
    assert (tmp_path / "run" / "sub-01.html").is_file() and (tmp_path / "napari.png").stat().st_size > 10_000
    # rows of other stages stay where one is measured again
    subprocess.run([*command, "--stages", "score"], check=True, timeout=300)
    assert len(json.loads((tmp_path / "rows.json").read_text())) == len(rows)
