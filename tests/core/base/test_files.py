"""A killed or failing writer leaves the old file or none; fingerprints depend on values only."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_neuraldiffuser.core.base import files
from napari_neuraldiffuser.core.params import GuidanceParams


def test_atomic_path_replaces_only_on_success(tmp_path):
    target = tmp_path / "a" / "map.nii.gz"
    with files.atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"

    with pytest.raises(KeyboardInterrupt), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "one"
    assert os.listdir(target.parent) == ["map.nii.gz"]


def test_written_files_have_ordinary_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    files.write_json(tmp_path / "x.json", {})
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "x.json"
    files.write_json(target, {"old": True})
    code = (
        "import sys, time; from napari_neuraldiffuser.core.base.files import atomic_path\n"
        f"with atomic_path({str(target)!r}) as t:\n"
        "    t.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=30)
    writer.stdout.close()
    assert files.read_json(target) == {"old": True}


def test_folder_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(files.OutputError, match="must be a folder that can be written") as caught:
        files.make_folder(blocked / "inside")
    assert str(blocked) in str(caught.value)


def test_json_takes_arrays_params_and_paths(tmp_path):
    values = {"a": np.arange(3), "b": np.float32(0.5), "c": GuidanceParams(), "d": Path("x"), "e": (1, 2)}
    files.write_json(tmp_path / "x.json", values)
    read = files.read_json(tmp_path / "x.json")
    assert read["a"] == [0, 1, 2]
    assert read["b"] == 0.5
    assert GuidanceParams.from_dict(read["c"]) == GuidanceParams()
    assert read["d"] == "x"


def test_fingerprint_sees_values_not_order():
    first = files.fingerprint({"a": 1, "b": [1.0, 2]})
    assert first == files.fingerprint({"b": [1.0, 2], "a": 1})
    assert first != files.fingerprint({"a": 1, "b": [1.0, 3]})
    scaled = GuidanceParams().but(guidance_scale=1.0)
    assert files.fingerprint(GuidanceParams()) != files.fingerprint(scaled)


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.file_digest(tmp_path / "x") == published
