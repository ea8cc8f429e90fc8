"""Workflows of a few Function nodes that run in no time, fail as they are told, or wait."""

from nipype.pipeline import engine as pe

import nipype_interfaces  # noqa: F401  before nipype: turns its telemetry off
from nipype_interfaces.no_environment import Function


def ok(x):
    return x


def fails(x, stimulus_ids=None):
    if x == "user":
        from napari_neuraldiffuser.core.params import ParamError

        raise ParamError("x must be 1, got user. Give 1.")
    if x == "library":
        raise ValueError("first line\nsecond line")
    if x == "disk":
        raise OSError(28, "No space left on device")
    if x == "chained":
        try:
            open("/no/such/file")
        except OSError as error:
            raise RuntimeError("cannot go on") from error
    return x


def counts(x, folder):
    # a folder, as a file that is an input is one of those that decide whether a node is cached
    with open(folder + "/log", "a") as stream:
        stream.write(f"{x}\n")
    return x


def waits(x, folder):
    import os
    import time
    from pathlib import Path

    (Path(folder) / f"{x}.pid").write_text(str(os.getpid()))
    time.sleep(120)
    return x


def node(function, name, **inputs):
    made = pe.Node(Function(function=function), name=name)
    made.inputs.trait_set(**inputs)
    return made


def map_node(function, name, iterfield, **inputs):
    made = pe.MapNode(Function(function=function), iterfield=iterfield, name=name)
    made.inputs.trait_set(**inputs)
    return made


def workflow(base, *nodes, chain=False):
    """`nodes` as a subject's workflow; with `chain` one after another."""
    wf, subject = pe.Workflow("wf", base_dir=str(base)), pe.Workflow("sub_01_wf")
    subject.add_nodes(list(nodes))
    if chain:
        for before, after in zip(nodes, nodes[1:], strict=False):
            subject.connect(before, "out", after, "x")
    wf.add_nodes([subject])
    return wf
