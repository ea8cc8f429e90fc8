"""Nipype interfaces and workflows over `napari_neuraldiffuser.core`: files in, one core call, files out."""

import os

# nipype asks a server for its newest version at import; these turn that off
os.environ.setdefault("NO_ET", "1")
os.environ.setdefault("NIPYPE_NO_ET", "1")
