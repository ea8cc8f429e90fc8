"""What a user gets wrong in the plugin, in a real window: part of window_story.py."""

from pathlib import Path

from tests.support.window.real_window import Window, errors, tell


def wrong_data(window: Window, folder: Path) -> None:
    """A folder that is not NSD: said where it was typed; the panels keep the subject that they had."""
    panel, kept = window.panels["Data"], window.session.recipe.source
    window.dock.show_page("Data")
    (folder / "empty").mkdir()
    panel.form.nsd.choose(str(folder / "empty"))
    hint = panel.hint.text()
    assert "must hold" in hint and not panel.run_button.isEnabled(), hint
    assert window.session.recipe.source == kept
    panel.form.nsd.choose(kept.nsd_dir)
    window.ready("Data")
    tell("wrong_data", hint=hint)


def wrong_models(window: Window, folder: Path) -> None:
    """A missing folder and a broken one are said at once, and nothing can be run with them."""
    panel = window.panels["Decode"]
    window.dock.show_page("Decode")
    panel.models.models.setEditText(str(folder / "nowhere"))
    panel.models._taken()
    hint = panel.hint.text()
    assert "nowhere" in hint and not panel.run_button.isEnabled(), hint
    for part in ("vae", "unet", "scheduler", "text_encoder", "tokenizer", "image_encoder"):
        (folder / "broken" / part).mkdir(parents=True)
    panel.models.models.setEditText(str(folder / "broken"))
    panel.models._taken()
    message = panel.hint.text()
    assert "broken" in message and "vae" in message and not panel.run_button.isEnabled(), message
    assert not errors(), errors()
    panel.models.models.setEditText("demo")
    panel.models._taken()
    window.wait(lambda: window.session.decoded is not None, "what was decoded with the former models")
    tell("wrong_models", hint=hint, message=message)
