"""NSD's design and responses: read in every version of MATLAB's files, and what is wrong with them is said."""

import h5py
import numpy as np
import pytest
import scipy.io

from napari_neuraldiffuser.core import nsd


def test_a_design_that_matlab_saved_as_version_7_3(tree):
    """HDF5 shows MATLAB's arrays with their axes in reverse; both versions give the same trials."""
    path = tree.root / "nsddata/experiments/nsd/nsd_expdesign.mat"
    old = scipy.io.loadmat(path)
    want = nsd.Subject(tree.root, "subj02").trials
    with h5py.File(path, "w", userblock_size=512) as file:
        for name in ("masterordering", "subjectim", "sharedix"):
            file[name] = old[name].T
    content = bytearray(path.read_bytes())
    content[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(content)
    assert nsd.Subject(tree.root, "subj02").trials.equals(want)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_a_design_of_other_numbers_is_refused(tree, version):
    path = tree.root / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design = {
        name: values for name, values in scipy.io.loadmat(path).items() if name in ("masterordering", "subjectim")
    }

    def write(**changes):
        arrays = design | changes
        if version == "5":
            return scipy.io.savemat(path, arrays)
        with h5py.File(path, "w") as file:
            file.update({name: values.T for name, values in arrays.items()})

    for changes in (
        {"subjectim": design["subjectim"].T},
        {"subjectim": design["subjectim"] - 1},
        {"subjectim": design["subjectim"] + 73000},
        {"masterordering": design["masterordering"] - 1},
        {"masterordering": design["masterordering"] + 10000},
    ):
        write(**changes)
        with pytest.raises(nsd.NSDError, match="nsd_expdesign.mat must hold subjectim .*Download it again"):
            _ = nsd.Subject(tree.root, "subj02").trials
    design.pop("subjectim")
    write()
    with pytest.raises(nsd.NSDError, match="nsd_expdesign.mat must hold .*subjectim"):
        _ = nsd.Subject(tree.root, "subj02").trials
    write(subjectim=np.ones((8, 10000)))
    content = path.read_bytes()
    for kept, told in ((0, "an empty file"), (len(content) // 2, "truncated|damaged")):
        path.write_bytes(content[:kept])
        with pytest.raises(nsd.NSDError, match=f"nsd_expdesign.mat must be .*, got .*({told})"):
            _ = nsd.Subject(tree.root, "subj02").trials


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "be a table, got an empty file"),
        ("SUBJECT\tSESSION\tRUN\tTRIAL\t73KID\n", "have rows below its header"),
        ("SUBJECT\tSESSION\tRUN\tTRIAL\n2\t1\t1\t1\n", "have the columns SESSION, RUN, TRIAL, 73KID, got no 73KID"),
        (
            "SESSION\tRUN\tTRIAL\t73KID\n1\t1\t1\tn/a\n",
            "have whole numbers in column 73KID, got a missing one in row 1",
        ),
    ],
)
def test_responses_that_are_none(tree, content, told):
    path = tree.root / "nsddata/ppdata/subj02/behav/responses.tsv"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(nsd.NSDError, match=f"responses.tsv must {told}"):
        _ = nsd.Subject(tree.root, "subj02").trials
