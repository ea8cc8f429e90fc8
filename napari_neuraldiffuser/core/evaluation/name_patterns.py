"""Which stimulus, repeat and arm a file's name stands for, by a user's pattern such as `img_{stimulus}_{repeat}`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from napari_neuraldiffuser.core.base.errors import UserError

PLACEHOLDERS = {"stimulus": ".+?", "repeat": r"\d+", "arm": "[^_/]+?"}
"""What each stands for in a name."""
PIECES = re.compile(r"(\{[^}]*\}|\*)")
EXAMPLE = "Write it like img_{stimulus}_{repeat}, with * for what does not matter."


class PatternError(UserError):
    """A pattern of file names that cannot be used; the message says why and shows one."""


@dataclass(frozen=True)
class NamePattern:
    """A whole file name without its ending; with a / in it, the whole path below the folder.

    Attributes
    ----------
    text : str
        `{stimulus}` is any text, `{repeat}` a whole number, `{arm}` text without _, each once; `*` is anything.

    Raises
    ------
    PatternError
        If it has no `{stimulus}`, an unknown or repeated placeholder, or two that nothing separates.
    """

    text: str

    def __post_init__(self) -> None:
        names = re.findall(r"\{([^}]*)\}", self.text)
        unknown = [name for name in names if name not in PLACEHOLDERS]
        if unknown or "stimulus" not in names or len(set(names)) < len(names):
            raise PatternError(
                f"pattern must have {{stimulus}} and may have {{repeat}} and {{arm}}, each once, got {self.text!r}. "
                f"{EXAMPLE}"
            )
        if re.search(r"[}*][{*]", self.text):
            raise PatternError(f"pattern must have text between its placeholders, got {self.text!r}. {EXAMPLE}")

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile("".join(map(_part, PIECES.split(self.text))), re.IGNORECASE)

    def read(self, below: str) -> Mapping[str, str] | None:
        """The placeholders' values in a path below the folder, without ending; None where it does not fit."""
        found = self._regex.fullmatch(below if "/" in self.text else below.rsplit("/", 1)[-1])
        return found and found.groupdict()


def _part(piece: str) -> str:
    if piece == "*":
        return ".*?"
    name = piece[1:-1]
    return f"(?P<{name}>{PLACEHOLDERS[name]})" if piece.startswith("{") else re.escape(piece)
