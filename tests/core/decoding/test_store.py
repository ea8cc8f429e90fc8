"""Whatever of a decoder file or an embeddings file is lost or of another kind, it is refused in one sentence."""

import shutil

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core import decoding
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from tests.core.decoding.test_ridge import fitted


def put(file, name, value):
    del file[name]
    if value is not None:
        file[name] = value


def first_is_nan(values):
    values = np.array(values)
    values.flat[0] = np.nan
    return values


CHANGES = {
    # what is put in a dataset's place; None for nothing
    "lost": lambda values: None,
    "a number": lambda values: 3.5 if values.ndim else np.zeros(2),
    "a text": lambda values: "text" if values.dtype.kind != "O" else 3,
    "texts": lambda values: ["a"] * max(values.size, 1) if values.dtype.kind != "O" else [1],
    "nothing in it": lambda values: np.empty(0, values.dtype if values.dtype.kind != "O" else float),
    "a row less": lambda values: values[:-1] if values.ndim else np.zeros(3),
    "a row more": lambda values: np.concatenate([values, values[:1]]) if values.ndim else np.zeros(1),
}


def datasets(path):
    """Names of all datasets of a file."""
    found = []
    with h5py.File(path) as file:
        file.visititems(lambda name, thing: found.append(name) if isinstance(thing, h5py.Dataset) else None)
    return found


def groups(path):
    found = []
    with h5py.File(path) as file:
        file.visititems(lambda name, thing: found.append(name) if isinstance(thing, h5py.Group) else None)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A decoder, what it predicts, and the betas."""
    folder = tmp_path_factory.mktemp("decoder")
    decoder, _, test, _, _ = fitted(align="train")
    decoder.save(folder / "decoder.h5")
    decoder.predict(test).save(folder / "embeddings.h5")
    return folder, test


def use(path, test):
    """Open a file and do with it what it is for."""
    if path.name.startswith("embeddings"):
        Embeddings.load(path)
        return
    decoder = decoding.load(path)
    try:
        decoder.predict(test)
    finally:
        decoder.close()


def refusal(path, test):
    with pytest.raises(UserError) as error:
        use(path, test)
    said = str(error.value)
    assert "\n" not in said and said.count(". ") <= 2 and "Error" not in said
    return said


@pytest.mark.parametrize("which", ["decoder.h5", "embeddings.h5"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_dataset_that_is_lost_or_another(files, tmp_path, which, change):
    folder, test = files
    names = datasets(folder / which)
    assert len(names) > 3
    for name in names:
        path = shutil.copy(folder / which, tmp_path / which)
        with h5py.File(path, "a") as file:
            put(file, name, CHANGES[change](np.asarray(file[name][()])))
        # without its g, a file of z and c is one of fewer layers
        if which == "embeddings.h5" and change == "lost" and name.startswith("g/"):
            use(path, test)
            continue
        assert refusal(path, test), name


@pytest.mark.parametrize("which", ["decoder.h5", "embeddings.h5"])
@pytest.mark.parametrize("kind", ["group", "number in place of a group"])
def test_things_of_another_kind(files, tmp_path, which, kind):
    folder, test = files
    for name in datasets(folder / which) if kind == "group" else groups(folder / which):
        path = shutil.copy(folder / which, tmp_path / which)
        with h5py.File(path, "a") as file:
            put(file, name, 3 if kind != "group" else None)
            if kind == "group":
                file.create_group(name)
        if which == "embeddings.h5" and name == "g":
            continue
        assert refusal(path, test), name


def test_what_is_not_finite(files, tmp_path):
    """But for R², which a target without variance has not."""
    folder, test = files
    floats = []
    for name in datasets(folder / "decoder.h5"):
        path = shutil.copy(folder / "decoder.h5", tmp_path / "decoder.h5")
        with h5py.File(path, "a") as file:
            if file[name].dtype.kind != "f" or name.endswith(("/r2", "/distance")):
                continue
            floats.append(name)
            put(file, name, first_is_nan(file[name][...]))
        said = refusal(path, test)
        assert "NaN or infinity" in said or "penalty" in said, name
    assert len(floats) > 10


@pytest.mark.parametrize("value", [None, "text", 7, [1, 2]])
def test_attributes(files, tmp_path, value):
    folder, test = files
    for where, name in [
        ("decoder", "params"),
        ("decoder", "format"),
        *((f"decoder/fits/{t}", a) for t in ("z", "c", "g02") for a in ("chosen", "shape", "axis")),
        *((f"decoder/fits/{t}/alignment", "form") for t in ("z", "c", "g02")),
    ]:
        path = shutil.copy(folder / "decoder.h5", tmp_path / "decoder.h5")
        with h5py.File(path, "a") as file:
            del file[where].attrs[name]
            if value is not None:
                file[where].attrs[name] = value
        assert refusal(path, test), (where, name)


@pytest.mark.parametrize("kind", ["forest", 3, [1, 2]])
def test_a_kind_that_is_not_known(files, tmp_path, kind):
    folder, test = files
    path = shutil.copy(folder / "decoder.h5", tmp_path / "decoder.h5")
    with h5py.File(path, "a") as file:
        file["decoder"].attrs["kind"] = kind
    assert "must be a decoder of a kind among" in refusal(path, test)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("which", ["decoder.h5", "embeddings.h5"])
def test_a_file_that_was_cut_short(files, tmp_path, which, share):
    folder, test = files
    data = (folder / which).read_bytes()
    (tmp_path / which).write_bytes(data[: int(share * len(data))])
    assert str(tmp_path / which) in refusal(tmp_path / which, test)


def test_one_file_for_the_other(files, tmp_path):
    """An embeddings file is no decoder; of a decoder file the targets are read as embeddings."""
    folder, test = files
    shutil.copy(folder / "embeddings.h5", tmp_path / "decoder.h5")
    assert "must be a decoder file" in refusal(tmp_path / "decoder.h5", test)


def test_a_part_of_a_decoder_decodes_nothing(files, tmp_path):
    folder, test = files
    path = shutil.copy(folder / "decoder.h5", tmp_path / "decoder.h5")
    with h5py.File(path, "a") as file:
        del file["decoder/fits/c"]
    assert "must have z and c to decode, got no c" in refusal(path, test)
