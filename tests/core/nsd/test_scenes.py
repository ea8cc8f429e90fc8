"""Procedural scenes: same number, same picture; the picture, the words and the numbers tell the same story."""

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes
from napari_neuraldiffuser.core.nsd.simulation.scenes.draw import Lighting, Scene, SceneObject


def drawn(count, seed=3):
    return [scenes.draw_scene(np.random.default_rng([seed, index])) for index in range(count)]


def one(kind="ball", colour="red", background="checker", light=None, **place):
    item = SceneObject(kind, colour, **{"x": 0.5, "y": 0.5, "size": 0.25, **place})
    return Scene(background, light or Lighting(), (item,))


def shrink(image, factor):
    side = image.shape[0] // factor
    return image.reshape(side, factor, side, factor, 3).astype(float).mean((1, 3))


def test_the_same_seed_draws_and_renders_the_same():
    for first, second in zip(drawn(10), drawn(10), strict=True):
        assert first == second
        np.testing.assert_array_equal(scenes.render(first), scenes.render(second))


def test_different_seeds_draw_different_scenes():
    assert len({json.dumps(scene.to_dict()) for scene in drawn(200)}) == 200


@pytest.mark.parametrize("size", [8, 63, 64, 128, 425])
def test_render_gives_the_asked_size(size):
    image = scenes.render(drawn(1)[0], size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8


@pytest.mark.parametrize("background", scenes.BACKGROUND_KINDS)
def test_a_larger_rendering_shrinks_to_the_small_one(background):
    for scene in drawn(5):
        scene = replace(scene, background=background)
        difference = np.abs(shrink(scenes.render(scene, 256), 4) - scenes.render(scene, 64))
        assert difference.mean() < 2.0  # of 255
        assert np.quantile(difference, 0.99) < 30


def test_scenes_survive_json():
    for scene in drawn(20):
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


def test_every_kind_colour_background_and_light_is_drawn():
    found = drawn(400)
    assert {scene.background for scene in found} == set(scenes.BACKGROUND_KINDS)
    assert {item.kind for scene in found for item in scene.objects} == set(scenes.OBJECT_KINDS)
    assert {item.colour for scene in found for item in scene.objects} == set(scenes.COLOUR_NAMES)
    assert {len(scene.objects) for scene in found} == {1, 2, 3}
    assert all(scene.objects[0].size == max(item.size for item in scene.objects) for scene in found)


@pytest.mark.parametrize("colour", scenes.COLOUR_NAMES)
def test_an_object_has_its_colour_at_its_place(colour):
    from napari_neuraldiffuser.core.nsd.simulation.scenes.shapes import COLOURS

    image = scenes.render(one(colour=colour, x=0.3, y=0.4)).astype(float)
    seen = image[int(0.4 * 64) - 2 : int(0.4 * 64) + 2, int(0.3 * 64) - 2 : int(0.3 * 64) + 2].mean((0, 1))
    wanted = {name: np.array(rgb) / np.linalg.norm(rgb) for name, rgb in COLOURS.items()}
    assert max(wanted, key=lambda name: wanted[name] @ seen / np.linalg.norm(seen)) == colour


@pytest.mark.parametrize("kind", scenes.OBJECT_KINDS)
def test_every_kind_changes_the_picture_where_it_stands_only(kind):
    here, there = (scenes.render(one(kind, x=x, size=0.2)).astype(int) for x in (0.25, 0.75))
    changed = np.abs(here - there).max(-1) > 8
    assert changed.mean() > 0.08
    assert not changed[:8].any()


def test_bright_is_brighter_than_dim_and_the_lit_side_than_the_other():
    bright, dim = (scenes.render(one(light=Lighting("left", level))) for level in ("bright", "dim"))
    assert bright.mean() > 1.3 * dim.mean()
    left, right = (scenes.render(one(light=Lighting(side, "soft"))).astype(float) for side in ("left", "right"))
    assert (left - right)[:, :20].mean() > 10 > -10 > (left - right)[:, -20:].mean()


def test_captions_use_the_vocabulary_and_stay_short():
    words = set(scenes.scene_vocabulary())
    for scene in drawn(300):
        for caption in scenes.captions(scene, 5):
            assert set(caption.split()) <= words
            assert len(caption.split()) <= 23  # and two end tokens fit into 32


def test_captions_are_deterministic_distinct_and_aligned():
    for scene in drawn(50):
        said = scenes.captions(scene)
        assert said == scenes.captions(scene) and len(set(said)) == 3
        assert len({len(caption.split()) for caption in said}) == 1
        assert scenes.captions(scene, 6)[:3] == said


def test_the_caption_names_what_is_there():
    item = SceneObject("house", "blue", 0.2, 0.3, 0.3)
    other = SceneObject("star", "red", 0.8, 0.8, 0.1)
    scene = Scene("snow", Lighting("right", "dim"), (item, other))
    expected = "a large blue house at top left before snow in dim right light with red star bottom right"
    assert scenes.captions(scene, 1) == [expected]


def test_contents_agree_with_the_objects():
    for scene in drawn(100):
        values = scenes.contents(scene)
        assert sum(values[f"background:{kind}"] for kind in scenes.BACKGROUND_KINDS) == 1
        assert values[f"background:{scene.background}"] == 1
        for kind in scenes.OBJECT_KINDS:
            extent = sum(2 * item.size for item in scene.objects if item.kind == kind)
            assert values[f"kind:{kind}"] == pytest.approx(extent)
        for name, kind in {"face": "face", "house": "house", "body": "figure", "word": "sign"}.items():
            assert values[name] == values[f"kind:{kind}"]
        assert values["n_objects"] == len(scene.objects)


def test_contents_have_the_same_names_and_finite_numbers_for_every_scene():
    tables = [scenes.contents(scene) for scene in drawn(50)]
    assert all(list(table) == list(tables[0]) for table in tables)
    assert all(np.isfinite(list(table.values())).all() for table in tables)
    assert {table["light_side"] for table in tables} == {-1.0, 1.0}


def test_an_object_outside_or_across_the_border_is_drawn_without_error():
    assert scenes.render(one(x=5.0)).shape == (64, 64, 3)
    np.testing.assert_array_equal(scenes.render(one(x=5.0)), scenes.render(one(y=-5.0)))
    assert scenes.render(one(x=0.0, y=1.0)).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: one(kind="dog"), "kind must be one of"),
        (lambda: one(colour="mauve"), "colour must be one of"),
        (lambda: one(background="moon"), "background must be one of"),
        (lambda: one(size=0), "size must be above 0"),
        (lambda: one(size=float("nan")), "size must be above 0"),
        (lambda: Lighting("up"), "direction must be one of"),
        (lambda: Lighting("left", "loud"), "brightness must be one of"),
        (lambda: Scene("sea", Lighting(), ()), "objects must be one or more"),
        (lambda: scenes.render(one(), 4), "size must be 8 or more"),
        (lambda: scenes.captions(one(), 0), "n must be 1 or more"),
    ],
)
def test_odd_inputs_are_refused_with_the_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()
