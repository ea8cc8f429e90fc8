"""Qt and napari only: readers and dock widgets over the functions of `napari_neuraldiffuser.core`."""
