"""Weights of scoring networks: what is read, what is refused with which sentence, and scores from files to table."""

import hashlib
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_neuraldiffuser.core.evaluation import evaluate
from napari_neuraldiffuser.core.evaluation.metrics import MetricError
from napari_neuraldiffuser.core.evaluation.networks import backbones
from napari_neuraldiffuser.core.evaluation.networks.weights import MetricWeightsError, Published, find, load_into
from napari_neuraldiffuser.core.params import EvaluationParams
from tests.core.evaluation.networks.test_networks import efficientnet, filled, resnet50

TINY = Published("Tiny", r"tiny-([0-9a-f]{8})\.pth", "tiny-12345678.pth", "https://example.org", "module.", r"head\..*")


def tiny():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def saved(folder, state, name=None):
    """A file that is named by its digest, as torchvision names its own."""
    torch.save(state, path := folder / "new")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(folder / (name or f"tiny-{digest[:8]}.pth"))


def state():
    return {f"module.{name}": weight for name, weight in tiny().state_dict().items()} | {"head.weight": torch.ones(1)}


def test_the_file_is_found_checked_and_read(tmp_path):
    wanted = state()
    path = saved(tmp_path, wanted)
    with torch.device("meta"):
        network = tiny()
    digest = load_into(network, TINY, find(TINY, tmp_path))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(wanted[f"module.{name}"], weight) for name, weight in network.state_dict().items())


def test_counts_of_training_may_lack(tmp_path):
    path = saved(tmp_path, {name: one for name, one in state().items() if "num_batches" not in name})
    load_into(tiny(), TINY, path)


def _without(s):
    del s["module.0.bias"]


FAULTS = {
    "lacking": (_without, "1 missing, such as 0.bias"),
    "strange": (lambda s: s.update({"module.2.weight": torch.ones(1)}), "1 unknown, such as 2.weight"),
    "shape": (lambda s: s.update({"module.0.weight": torch.ones(2, 4)}), "0.weight (2, 4) for (2, 3)"),
    "nan": (lambda s: s.update({"module.0.bias": torch.full((2,), torch.nan)}), "1 not finite, such as 0.bias"),
    "object": (lambda s: s.update({"module.0.bias": "text"}), "must be a table of the weights of Tiny"),
    "code": (lambda s: s.update({"module.0.bias": re.compile("x")}), "cannot be read as tensors alone"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_file_holds_is_checked(tmp_path, fault):
    change, said = FAULTS[fault]
    change(changed := state())
    path = saved(tmp_path, changed)
    with pytest.raises(MetricWeightsError) as told:
        load_into(tiny(), TINY, path)
    sentence = str(told.value)
    assert said in sentence and str(path) in sentence and "\n" not in sentence
    assert "Download https://example.org/tiny-12345678.pth, SHA-256 12345678... again." in sentence


def test_the_digest_in_the_name_is_that_of_the_file(tmp_path):
    path = saved(tmp_path, state(), "tiny-12345678.pth")
    with pytest.raises(MetricWeightsError, match=r"must have the SHA-256 that its name promises, 12345678\.\.\., got"):
        load_into(tiny(), TINY, path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(MetricWeightsError, match="got a pointer of Git LFS"):
        load_into(tiny(), TINY, path)


def test_no_file_and_several_are_refused(tmp_path):
    with pytest.raises(MetricWeightsError, match="must be a folder of weights"):
        find(TINY, tmp_path / "nowhere")
    with pytest.raises(MetricWeightsError, match=r"got none. Download https://example.org/tiny-12345678.pth, SHA-256"):
        find(TINY, tmp_path)
    for name in ("tiny-00000000.pth", "tiny-11111111.pth"):
        (tmp_path / name).touch()
    with pytest.raises(MetricWeightsError, match="got tiny-00000000.pth, tiny-11111111.pth"):
        find(TINY, tmp_path)
    (tmp_path / TINY.name).touch()
    assert find(TINY, tmp_path).name == TINY.name


def test_every_network_names_what_it_lacks(tmp_path):
    for name, backbone in backbones.BACKBONES.items():
        with pytest.raises(MetricWeightsError, match=r"Download .*(pth|tar|safetensors)") as told:
            backbone.open(tmp_path, "cpu")
        assert "https://" in str(told.value) and "digest" in str(told.value) or "SHA-256" in str(told.value), name


def test_networks_need_their_folder():
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(
        MetricError, match="metric_weights must name the folder .* for metrics alexnet2, swav, got none"
    ):
        evaluate(pictures, pictures, params=EvaluationParams(metrics=("alexnet2", "pixcorr", "swav")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random EfficientNet-B1 as torchvision would name it, and SwAV as its authors saved it."""
    folder = tmp_path_factory.mktemp("weights")
    one, other = filled(backbones.EfficientNetB1, 1.0), filled(backbones.ResNet50)
    saved(folder, one.state_dict(), "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    (folder / "new.pth").rename(folder / f"efficientnet_b1-{digest[:8]}.pth")
    swav = {f"module.{k}": v for k, v in other.state_dict().items() if not k.startswith("fc.")}
    swav |= {"module.prototypes.weight": torch.ones(2, 2), "module.projection_head.0.weight": torch.ones(2, 2)}
    saved(folder, swav, "swav_800ep_pretrain.pth.tar")
    return folder, {"efficientnet": one.state_dict(), "swav": other.state_dict()}, digest


def shown(images, side):
    """Pictures as the protocol shows them."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    for size in (256, side):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean.view(3, 1, 1)) / sd.view(3, 1, 1)


def test_distances_from_files_to_summary(weights):
    folder, states, digest = weights
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8).repeat(20, axis=1).repeat(20, axis=2)
    recon = np.clip(seen[:, None] + 60 * rng.standard_normal((3, 2, 80, 80, 3)), 0, 255).astype(np.uint8)
    params = EvaluationParams(size=32, metrics=("efficientnet", "swav"), metric_weights=str(folder), batch_size=4)
    scores = evaluate(recon, seen, None, params)
    assert list(scores.values) == ["efficientnet", "swav"]
    for name, reference, side in (("efficientnet", efficientnet, 255), ("swav", resnet50, 224)):
        with torch.inference_mode():
            target, drawn = (reference(states[name], shown(x, side))[""].numpy() for x in (seen, recon[:, 1]))
        expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(target, drawn, strict=True)]
        assert np.allclose(scores.values[name][:, 1], expected, rtol=2e-2) and min(expected) > 1e-5
        assert scores.chance[name] > scores.values[name].mean()
    told = scores.protocol["networks"]["efficientnet"]
    assert told == {"file": f"efficientnet_b1-{digest[:8]}.pth", "sha256": digest}
    assert told["file"] in scores.protocol["metrics"]["efficientnet"]


def test_clip_is_opened_as_what_it_is(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    small = {
        **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 56},
        **{"image_size": 224, "projection_dim": 8},
    }
    config = transformers.CLIPVisionConfig(**small, intermediate_size=32)
    torch.manual_seed(0)
    network = transformers.CLIPVisionModelWithProjection(config).eval()
    network.save_pretrained(tmp_path / backbones.CLIP_FOLDER)
    with pytest.raises(
        MetricWeightsError, match="must be the image encoder of CLIP ViT-L/14, got hidden_size 16 for 1024"
    ):
        backbones.BACKBONES["clip"].open(tmp_path, "cpu")
    monkeypatch.setattr(backbones, "CLIP_SHAPE", small)
    images = np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3), dtype=np.uint8)
    opened = backbones.BACKBONES["clip"].open(tmp_path, "cpu")
    x = shown(images, 224)
    # from ImageNet's normalisation to CLIP's
    x = x * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    mean, sd = (torch.tensor(v).view(3, 1, 1) for v in backbones.CLIP)
    with torch.inference_mode():
        expected = network((x - mean) / sd).image_embeds.numpy()
    assert np.allclose(opened(images)[""], expected, atol=1e-5)
    assert opened.file == f"{backbones.CLIP_FOLDER}/model.safetensors" and len(opened.digest) == 64
