"""The folder of a pretrained network, a row of the decoder's form while the decoder is a network."""

from dataclasses import fields
from typing import Any

from qtpy import QtWidgets

from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.decoding.network.files import check_network
from napari_neuraldiffuser.core.params import DecodingParams
from napari_neuraldiffuser.widgets.session import controls
from napari_neuraldiffuser.widgets.session.path_field import FOLDER, PathField
from napari_neuraldiffuser.widgets.session.session import Session

NAME = "network_pretrained"
KINDS: tuple[str, ...] = next(f.metadata["only"][1] for f in fields(DecodingParams) if f.name == NAME)


class PretrainedNetwork(PathField):
    """A line for the folder, which follows the session's recipe and changes it.

    Parameters
    ----------
    session : Session
    form : QFormLayout
        Gets the row.
    """

    def __init__(self, session: Session, form: QtWidgets.QFormLayout) -> None:
        told = next(f.metadata["help"] for f in fields(DecodingParams) if f.name == NAME)
        super().__init__("pretrained network", controls.tip(told), FOLDER)
        self.session, self._form = session, form
        form.addRow("Pretrained network", self)
        self.changed.connect(self._chosen)
        session.recipe_changed.connect(self.show_recipe)
        self.show_recipe(session.recipe)

    def problem(self) -> str:
        """Why the folder cannot be used, or nothing; it does not matter for other decoders."""
        if self.session.recipe.settings.decoding.decoder not in KINDS or not self.path:
            return ""
        return super().problem() or controls.problem_of(check_network, self.located)

    def show_recipe(self, recipe: Recipe) -> None:
        """Show the recipe's folder, where its decoder has one."""
        decoding: Any = recipe.settings.decoding
        rows: Any = self._form
        rows.setRowVisible(self, decoding.decoder in KINDS)
        if self.path != decoding.network_pretrained and self.located != decoding.network_pretrained:
            self.show_path(decoding.network_pretrained)
        else:
            self._show_problem()

    def _chosen(self) -> None:
        decoding = self.session.recipe.settings.decoding
        self.session.change_stage("decoding", decoding.but(network_pretrained=self.located))
