"""Masks of ROI expressions by their whole path: the engine, a script or another session starts in another folder."""

from pathlib import Path

from napari_neuraldiffuser.widgets.session.path_field import located


def absolute_masks(expression: str) -> str:
    """An expression whose masks, where they exist, do not depend on the current folder or the user.

    One that cannot be read comes back as it is.
    """
    if ".nii" not in expression.lower():
        return expression  # pandas comes with the grammar
    from napari_neuraldiffuser.core.base.errors import UserError
    from napari_neuraldiffuser.widgets.source.roi_terms import as_term, parse

    try:
        terms = parse(expression)
        names = [_absolute(term.name) if term.is_mask else term.name for term in terms]
        if names == [term.name for term in terms]:
            return expression
        joined = [f" {term.operator} {as_term(name)}" for term, name in zip(terms, names, strict=True)]
    except UserError:
        return expression
    return "".join(joined).removeprefix(" + ")


def _absolute(name: str) -> str:
    return located(name) if Path(located(name)).is_file() else name
