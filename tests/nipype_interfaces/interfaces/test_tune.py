"""The node that tunes gives the choice as files, and leaves the model folder alone."""

import pytest

from napari_neuraldiffuser.core.networks import chosen
from napari_neuraldiffuser.core.networks.digest import folder_digest
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams
from nipype_interfaces import Plan
from nipype_interfaces.interfaces import TuneGuidance
from tests.core.engine.test_tune import QUICK


@pytest.mark.slow
def test_the_node_records_its_choice_beside_its_page(nsd_dir, model_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in QUICK.to_dict().items()}
    made = TuneGuidance(nsd_dir=str(nsd_dir), models=str(model_dir), **values).run().outputs
    assert not (model_dir / chosen.CHOSEN).exists()
    found = chosen.read(made.record, folder_digest(str(model_dir)))
    assert found.diffusion == DiffusionParams().but(**made.diffusion)
    assert found.guidance == GuidanceParams().but(**made.guidance)
    assert made.page.endswith(".html") and made.note


def test_a_plan_of_models_has_what_was_chosen_for_them():
    own = Plan.of_models("demo", device="cuda")
    assert (own.settings.diffusion, own.settings.guidance) == (
        chosen.chosen("demo").diffusion,
        chosen.chosen("demo").guidance,
    )
    assert own.on_gpu and own.settings.betas == Plan().settings.betas
