"""A line of ridge penalties."""

from qtpy import QtWidgets
from qtpy.QtCore import Signal

from napari_neuraldiffuser.core.params import DecodingParams, ParamError
from napari_neuraldiffuser.widgets.session.controls import problem_of


class AlphasLine(QtWidgets.QLineEdit):
    """Numbers between spaces or commas; `changed(text)` as it is typed."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__(toolTip="Ridge penalties tried, for voxels of unit variance: numbers such as 1 10 1e3")
        self.textEdited.connect(lambda _: self.changed.emit())

    def show_alphas(self, alphas: tuple[float, ...]) -> None:
        """Show penalties, unless the line says the same already."""
        try:
            same = self.alphas() == tuple(alphas)
        except ParamError:
            same = False
        if not same:
            self.setText(" ".join(brief(alpha) for alpha in alphas))
            self.setCursorPosition(0)

    def alphas(self) -> tuple[float, ...]:
        """The penalties; ParamError where the line has anything else."""
        words = self.text().replace(",", " ").split()
        try:
            alphas = tuple(float(word) for word in words)
        except ValueError:
            alphas = ()
        if not alphas:
            raise ParamError(f"alphas must be numbers above 0, got {self.text()!r}. Write some, such as 1 10 100.")
        DecodingParams(alphas=alphas)
        return alphas

    def problem(self) -> str:
        """Why the line cannot be used, or nothing."""
        return problem_of(self.alphas)


def brief(number: float) -> str:
    """The shortest way to write a number: 10, 1e4."""
    plain, power = f"{number:.17g}", f"{number:.16e}"
    digits, exponent = power.split("e")
    short = f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    return min(plain, repr(number).removesuffix(".0"), short, key=len)
