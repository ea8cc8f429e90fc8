"""The one exception of the NSD reader and simulator."""

from napari_neuraldiffuser.core.base.errors import UserError


class NSDError(UserError):
    """A file, folder or option of the scan data is not what it must be; the message names it, the rule and
    the remedy."""
