"""The bundled models open with the library classes and do what their README says, on a few held-out scenes."""

import sys

import numpy as np
import pytest

from tests.support import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

FOLDER = ROOT / "napari_neuraldiffuser" / "demo_models"
sys.path.insert(0, str(ROOT / "scripts"))

from demo_training import classifier, data, decoders, encoders, evaluate, sampling, start, trainer, unet, vae  # noqa: E402

from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def parts(one_thread):
    return evaluate.open_folder(FOLDER)


@pytest.fixture(scope="module")
def held_out():
    images, captions = evaluate.held_out(100)
    return images, [said[0] for said in captions]


def test_the_folder_is_small_and_holds_safetensors_only():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert not [path for path in FOLDER.iterdir() if path.name.startswith(".")]


def test_the_weights_are_half_precision_and_finite():
    from safetensors.torch import load_file

    for path in FOLDER.rglob("*.safetensors"):
        for name, value in load_file(path).items():
            assert value.dtype == torch.float16 or not value.is_floating_point(), name
            assert torch.isfinite(value).all(), name


def test_shapes_are_those_the_package_relies_on(parts):
    assert parts.vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean.shape == (1, 4, 16, 16)
    assert parts.unet.config.sample_size == 16 and parts.unet.config.cross_attention_dim == 64
    assert parts.text(input_ids=parts.empty_tokens).last_hidden_state.shape == (1, 32, 64)
    assert parts.image.config.num_hidden_layers >= 6 and parts.image.config.image_size == 64


def test_the_scheduler_is_stable_diffusion_14s(parts):
    config = parts.scheduler.config
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    assert (config.steps_offset, config.clip_sample, config.set_alpha_to_one) == (1, False, False)
    assert config.prediction_type == "epsilon"


def test_the_tokenizer_knows_every_word_and_agrees_with_training(parts):
    captions = [text for index in range(50) for text in scenes.captions(data.scene(data.HELD_OUT_SEED, index), 4)]
    tokens = evaluate.tokenise(parts, captions)
    assert tokens.shape == (200, 32)
    assert parts.tokenizer.unk_token_id not in tokens
    np.testing.assert_array_equal(tokens, np.stack([data.encode(text) for text in captions]))
    assert evaluate.tokenise(parts, ["a zebra"])[0, 2] == parts.tokenizer.unk_token_id
    np.testing.assert_array_equal(evaluate.tokenise(parts, ["A Large RED ball"])[0], data.encode("a large red ball"))


def test_text_is_pooled_at_its_end_token(parts):
    tokens = evaluate.tokenise(parts, ["a large red ball at top left before sea in dim left light alone"])
    end = int((tokens[0] == parts.text.config.eos_token_id).nonzero()[0])
    out = parts.text(input_ids=tokens)
    torch.testing.assert_close(out.pooler_output, out.last_hidden_state[:, end])


def test_held_out_scenes_survive_the_vae(parts, held_out):
    assert vae.psnr(parts.vae, held_out[0][:12]) >= 28.5


def test_latents_have_about_unit_deviation(parts, held_out):
    latents = vae.encode_all(parts.vae, held_out[0][:24]) * parts.vae.config.scaling_factor
    assert 0.9 < latents.std() < 1.1


def test_captions_are_found_among_100(parts, held_out):
    images, captions = held_out
    assert len(set(captions)) == 100
    pair = evaluate.Projected(parts)
    assert encoders.retrieval(pair, data.to_unit(images), evaluate.tokenise(parts, captions)) >= 0.6


def test_the_mean_over_captions_is_close_to_each_caption(parts):
    said = scenes.captions(data.scene(data.HELD_OUT_SEED, 0))
    states = parts.text(input_ids=evaluate.tokenise(parts, said)).last_hidden_state
    other = parts.text(input_ids=evaluate.tokenise(parts, scenes.captions(data.scene(2, 1)))).last_hidden_state
    spread = (states - states.mean(0)).square().mean()
    assert spread < 0.5 * (states.mean(0) - other.mean(0)).square().mean()


def _far_corner_colours(background):
    """Mean colour of the top and bottom strips of real scenes with a background: (6,) in [0, 1]."""
    found = [scene for scene in (data.scene(7, index) for index in range(300)) if scene.background == background]
    return np.mean([_strips(scenes.render(scene, 64) / 255) for scene in found[:12]], 0)


def _strips(image):
    return np.concatenate([image[:6].mean((0, 1)), image[-6:].mean((0, 1))])


def test_samples_look_like_the_background_they_were_asked_for(parts):
    wanted = ["meadow", "desert", "night", "forest", "snow", "bricks"]
    captions = [f"a large white ball at middle center before {place} in bright left light alone" for place in wanted]
    real, right = np.stack([_far_corner_colours(place) for place in wanted]), 0
    for seed in range(4):
        options = {"steps": 15, "cfg_scale": 3.0, "seed": seed}
        drawn = sampling.sample_images(parts, evaluate.tokenise(parts, captions), options).permute(0, 2, 3, 1).numpy()
        nearest = [int(np.abs(real - _strips(image)).sum(1).argmin()) for image in drawn]
        right += sum(index == found for index, found in enumerate(nearest))
    assert right >= 18  # of 24, where chance gives 4


@pytest.mark.slow
def test_samples_change_with_the_colour_word(parts):
    colours = ["red", "green", "blue", "yellow"]
    captions = [f"a large {c} ball at middle center before snow in bright left light alone" for c in colours]
    options = {"steps": 30, "cfg_scale": 4.0, "seed": 5}
    drawn = sampling.sample_images(parts, evaluate.tokenise(parts, captions), options)
    middle = drawn[:, :, 26:38, 26:38].mean((2, 3))  # (4, RGB)
    assert middle[0].argmax() == 0 and middle[1].argmax() == 1 and middle[2].argmax() == 2
    assert middle[3, :2].min() > middle[3, 2]


def test_labels_are_read_from_the_captions_slots():
    scene = data.scene(data.HELD_OUT_SEED, 3)
    tokens = torch.from_numpy(data.encode(scenes.captions(scene, 1)[0]))[None]
    found = {name: classifier.HEADS[name][1][int(value)] for name, value in classifier.labels(tokens).items()}
    main = scene.objects[0]
    assert found == {"colour": main.colour, "kind": main.kind, "background": scene.background}


def test_training_resumes_where_it_stopped(tmp_path):
    def train(steps):
        torch.manual_seed(0)
        student = trainer.Trainer(torch.nn.Linear(3, 1), trainer.Recipe("tiny", warmup=1), tmp_path)
        seen = []

        def loss_of(step):
            seen.append(step)
            return student.model(torch.ones(4, 3)).square().mean(), ""

        student.run(loss_of, trainer.Budget(steps=steps))
        return student, seen

    first, seen = train(5)
    assert seen == [0, 1, 2, 3, 4]
    again, seen = train(8)
    assert seen == [5, 6, 7] and again.step == 8
    assert not list(tmp_path.glob("*.tmp"))


def test_data_are_the_same_for_any_number_of_processes():
    images, tokens = data.draw(1, 6, processes=2)
    again = data.draw(1, 6, processes=1)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(tokens, again[1])


def test_the_noise_loss_weights_clean_steps_down():
    model, scheduler = torch.nn.Module(), unet.schedule()
    model.forward = lambda z, t, c: type("Out", (), {"sample": torch.zeros_like(z)})
    batch = torch.zeros(64, 4, 16, 16), None, torch.ones(64, 16, 16)
    value, plain = unet.loss(model, scheduler, batch, torch.Generator().manual_seed(0))
    assert plain == pytest.approx(1.0, abs=0.02)
    assert 0.1 < value < plain


def test_pixels_of_objects_count_more_in_the_loss_and_their_weight_only_scales():
    weights = data.object_weights(data.HELD_OUT_SEED, 40, 16)
    assert set(np.unique(weights)) == {1, 2, 4}
    for index in range(40):
        main = data.scene(data.HELD_OUT_SEED, index).objects[0]
        assert weights[index, int(main.y * 16), int(main.x * 16)] == 4
        assert (weights[index] == 4).mean() == pytest.approx((2 * main.size) ** 2, abs=0.2)
    model, scheduler = torch.nn.Module(), unet.schedule()
    model.forward = lambda z, t, c: type("Out", (), {"sample": torch.zeros_like(z)})
    values = []
    for scale in (1.0, 3.0):
        batch = torch.zeros(8, 4, 16, 16), None, scale * torch.ones(8, 16, 16)
        values.append(unet.loss(model, scheduler, batch, torch.Generator().manual_seed(0))[0])
    assert values[0] == pytest.approx(values[1])


def test_hidden_words_are_the_unknown_word_and_nothing_else_changes():
    tokens = np.stack([data.encode(scenes.captions(data.scene(1, index), 1)[0]) for index in range(200)])
    hidden = data.hide_words(tokens, 0.25, np.random.default_rng(0))
    changed, words = hidden != tokens, tokens >= len(data.SPECIAL)
    assert (hidden[changed] == data.vocabulary()["<unk>"]).all() and not changed[~words].any()
    assert changed[words].mean() == pytest.approx(0.25, abs=0.02)


def test_training_goes_on_from_an_exported_folder(tmp_path, parts):
    start.start_from(FOLDER, tmp_path)
    tokens = evaluate.tokenise(parts, ["a small red star at top left before sea in dim left light alone"])
    pair = unet.trained(encoders.Pair(), tmp_path, "encoders")
    assert torch.equal(pair.text(input_ids=tokens).last_hidden_state, parts.text(input_ids=tokens).last_hidden_state)
    for name, build in (("vae", vae.build), ("unet", unet.build)):
        student = trainer.Trainer(build(), trainer.Recipe(name), tmp_path)
        assert student.step == 0
        for mine, theirs in zip(student.model.parameters(), getattr(parts, name).parameters(), strict=True):
            assert torch.equal(mine, theirs)
    before = (tmp_path / "vae.pt").stat().st_mtime_ns
    start.start_from(FOLDER, tmp_path)  # what was trained since is not overwritten
    assert (tmp_path / "vae.pt").stat().st_mtime_ns == before


def test_the_tiny_decoder_imitates_the_vaes_and_is_less_work(parts, held_out):
    from torch.utils.flop_counter import FlopCounterMode

    tiny = decoders.open_tiny(FOLDER)
    latents = vae.encode_all(parts.vae, held_out[0][:24]) * parts.vae.config.scaling_factor
    operations = []
    with torch.no_grad():
        for decode, z in ((parts.vae.decode, latents / parts.vae.config.scaling_factor), (tiny.decode, latents)):
            with FlopCounterMode(display=False) as counter:
                image = decode(z).sample.clamp(-1, 1)
            operations.append((counter.get_total_flops(), image))
    (slow, wanted), (fast, image) = operations
    assert fast < slow / 2
    assert -10 * torch.log10((image - wanted).square().mean() / 4) >= 29


@pytest.mark.slow
def test_every_stage_runs_and_leaves_a_folder_that_opens(tmp_path):
    import train_demo_models as script

    work, out = tmp_path / "work", tmp_path / "out"
    options = ["--work-dir", str(work), "--out", str(out), "--scenes", "24", "--steps", "2", "--threads", "1"]
    for stage in ("data", *script.LEARNED, "export"):
        assert script.main([*options, "--stage", stage]) == 0
    made = evaluate.open_folder(out)
    image = made.tiny.decode(torch.zeros(1, 4, 16, 16)).sample
    assert image.shape == made.vae.decode(torch.zeros(1, 4, 16, 16)).sample.shape == (1, 3, 64, 64)
    # a second sitting goes on from the folder, without the checkpoints
    again = tmp_path / "again"
    assert script.main([*options[2:], "--work-dir", str(again), "--stage", "data", "--from", str(out)]) == 0
    for part in ("vae", "unet", "encoders", "tiny"):
        assert set(torch.load(again / f"{part}.pt", weights_only=True)) == {"average"}
