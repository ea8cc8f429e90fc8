"""Maps on fsaverage in napari: both hemispheres, their values, and what cannot be shown."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.nsd.reading.surfaces import gifti
from napari_neuraldiffuser.widgets.files.folders import is_output, output_layers
from napari_neuraldiffuser.widgets.files.hemispheres import colours
from napari_neuraldiffuser.widgets.files.layer_info import kind_of
from napari_neuraldiffuser.widgets.files.outputs import OutputFolderError, find_outputs, find_subjects
from napari_neuraldiffuser.widgets.files.reader import ReadError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def write(folder, n=10242, hemispheres=("L", "R")):
    places = Derivatives(folder, "subj01", "fsaverage")
    places.folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text("{}")
    rng = np.random.default_rng(0)
    values = {}
    for path, hemi in zip(places.maps("z"), ("L", "R"), strict=True):
        values[hemi] = np.where(rng.random(n) < 0.2, rng.random(n), 0).astype(np.float32)
        if hemi in hemispheres:
            nib.save(gifti(values[hemi][None], hemi, "NIFTI_INTENT_SHAPE", np.float32), path)
    return values


def test_a_folder_opens_with_both_hemispheres(folder):
    from napari.layers import Layer

    values = write(folder, 40962)
    assert is_output(folder)
    (layer,) = output_layers(find_outputs(folder)["sub-01"])
    shown = Layer.create(*layer)
    assert kind_of(shown) == "contribution" and len(shown.data[0]) == 2 * 10242
    both = np.concatenate([values[hemi][:10242] for hemi in "LR"])
    np.testing.assert_array_equal(shown.metadata["values"], both)
    right = shown.data[0][:, 2]
    assert right[:10242].max() < 0 < right[10242:].min()  # the left hemisphere is on the left
    grey = np.ptp(colours(both)[:, :3], axis=1) < 1e-6
    np.testing.assert_array_equal(grey, both < 0.1 * both.max())


def test_the_page_of_volumes_says_where_surfaces_are_shown(folder):
    write(folder)
    with pytest.raises(OutputFolderError, match=r"maps on a surface .* Open the folder in napari"):
        find_subjects(folder)


def test_a_missing_hemisphere_and_too_few_vertices_are_said(folder):
    write(folder, hemispheres=("L",))
    with pytest.raises(ReadError, match="none of hemi-R"):
        output_layers(find_outputs(folder)["sub-01"])
    write(folder, 642)
    with pytest.raises(ReadError, match="10,242 vertices or more"):
        output_layers(find_outputs(folder)["sub-01"])
    Derivatives(folder, "subj01", "fsaverage").maps("z")[0].write_text("<GIFTI")
    with pytest.raises(ReadError, match="complete GIfTI"):
        output_layers(find_outputs(folder)["sub-01"])
