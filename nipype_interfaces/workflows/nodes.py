"""How the workflows make their nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from napari_neuraldiffuser.core.decoding.network.files import network_digest
from napari_neuraldiffuser.core.networks.chosen import chosen
from napari_neuraldiffuser.core.params import DecodingParams, DiffusionParams, Params, Settings, WorkflowParams
from nipype.interfaces.base import BaseInterface
from nipype.pipeline import engine as pe

from nipype_interfaces.interfaces import CheckModels
from nipype_interfaces.no_environment import IdentityInterface

MULTIPROC = {"mp_context": "forkserver"}
"""`plugin_args` that Nipype's own MultiProc needs with these nodes: a worker forked from a process in which torch has
already computed with several threads waits for them for ever, and a forked worker cannot use CUDA either."""
KEEP_OUTPUTS = {"execution": {"remove_unnecessary_outputs": "false"}}
"""An output that nothing is connected to is kept, whatever the workflow around says."""
LEFT_OUT = {"models": "demo", "guide": "", "n_stimuli": 0}
"""Values of a workflow's inputs where nothing is said."""


@dataclass(frozen=True)
class Plan:
    """What all workflows of a run have in common.

    Attributes
    ----------
    settings : Settings
        Parameters of every stage.
    cut : WorkflowParams
        How the work is cut into nodes, and what each asks for.
    device : str
        torch device of the nodes that use the models.  It is static, as Nipype looks for GPU nodes before any runs.
    """

    settings: Settings = Settings()
    cut: WorkflowParams = WorkflowParams()
    device: str = "cpu"

    @classmethod
    def of_models(cls, models: str, guide: str | None = None, **others: Any) -> "Plan":
        """A plan with the settings of diffusion and guidance that were chosen for a model folder.

        Parameters
        ----------
        models, guide : str
            As in `models.load`.
        others
            Other fields; `settings` has those of the other stages.
        """
        found = chosen(models, guide)
        settings = replace(others.pop("settings", Settings()), diffusion=found.diffusion, guidance=found.guidance)
        return cls(settings, **others)

    @property
    def on_gpu(self) -> bool:
        """Whether the nodes with models take a GPU slot."""
        return self.device.startswith("cuda")


def make_node(
    interface: BaseInterface, name: str, plan: Plan, *params: Params, iterfield: Sequence[str] = ()
) -> pe.Node:
    """A node of an interface with the params objects as inputs; a MapNode where `iterfield` is given."""
    node = pe.MapNode(interface, list(iterfield), name=name) if iterfield else pe.Node(interface, name=name)
    node.config = {section: dict(options) for section, options in KEEP_OUTPUTS.items()}
    names = node.inputs.trait_names()
    node._n_procs = max(1, plan.cut.num_threads)
    if "num_threads" in names and plan.cut.num_threads:
        node.inputs.num_threads = plan.cut.num_threads
    if "device" in names:
        node.inputs.device, node.inputs.use_gpu = plan.device, plan.on_gpu
        if plan.on_gpu:
            node._mem_gb = plan.cut.gpu_mem_gb
    return set_inputs(node, *params)


def on_gpu(node: pe.Node, plan: Plan, decoding: DecodingParams) -> None:
    """Have a node of a decoder take a GPU slot where the decoder computes on one, and see the pretrained network."""
    node.inputs.use_gpu = decoding.decoder_device == "cuda"
    if node.inputs.use_gpu:
        node._mem_gb = plan.cut.gpu_mem_gb
    if decoding.network_pretrained:
        node.inputs.network_digest = network_digest(decoding.network_pretrained)


def quick_node(interface: BaseInterface, name: str, plan: Plan, *params: Params) -> pe.Node:
    """A node that takes no time: it runs where the workflow runs, and is no job of a batch system."""
    node = make_node(interface, name, plan, *params)
    node.run_without_submitting = True
    return node


def begin(
    name: str, inputs: Sequence[str], outputs: Sequence[str], **values: Any
) -> tuple[pe.Workflow, pe.Node, pe.Node]:
    """A workflow with its `inputnode`, whose fields have `values` or what they are `LEFT_OUT`, and its `outputnode`."""
    wf = pe.Workflow(name=name)
    inputnode = pe.Node(IdentityInterface(fields=list(inputs)), name="inputnode")
    inputnode.inputs.trait_set(**{field: value for field, value in LEFT_OUT.items() if field in inputs} | values)
    outputnode = pe.Node(IdentityInterface(fields=list(outputs)), name="outputnode")
    wf.add_nodes([inputnode, outputnode])
    return wf, inputnode, outputnode


def check_models(wf: pe.Workflow, plan: Plan, inputnode: pe.Node, user: pe.Node, checked: bool = False) -> pe.Node:
    """Give a node the digest of models and guide, so that it runs again when a file of theirs changes.

    It comes from the inputnode where the workflow around has `checked` them, else from a node of its own.
    Returns where it comes from.
    """
    check = inputnode if checked else quick_node(CheckModels(), "check", plan)
    if not checked:
        wf.connect(inputnode, "models", check, "models")
        wf.connect(inputnode, "guide", check, "guide")
    wf.connect(check, "model_digest", user, "model_digest")
    return check


def with_digest(names: Sequence[str], checked: bool) -> tuple[str, ...]:
    """Fields of an inputnode whose workflow may be given the models' digest."""
    return (*names, "model_digest") if checked else tuple(names)


def typed(wf: pe.Workflow) -> pe.Workflow:
    """Give the inputnode's fields the types and descriptions of the inputs that they are connected to.

    A value of another type is then refused where it is set, and not by a node much later.
    """
    inputnode = wf.get_node("inputnode")
    for _, target, data in wf._graph.out_edges(inputnode, data=True):
        for field, there in data["connect"]:
            name = field if isinstance(field, str) else field[0]
            trait = _input_trait(target, there)
            # the first that says something counts: utility nodes take anything
            if trait is not None and trait.desc and not inputnode.inputs.trait(name).desc:
                inputnode.interface.tell({name: trait})
    return wf


def _input_trait(target: Any, field: str) -> Any:
    """The trait of a node's input, or of `node.field` of a workflow."""
    while isinstance(target, pe.Workflow):
        name, _, field = field.partition(".")
        target = target.get_node(name)
    return target.inputs.trait(field)


def describe(wf: pe.Workflow) -> str:
    """What the fields of a workflow's inputnode want, a line each."""
    inputs = wf.get_node("inputnode").inputs
    fields = [(name, inputs.trait(name).desc or "") for name in inputs.copyable_trait_names()]
    return "\n".join(f"{name}: {desc}" for name, desc in fields)


def same(*names: str) -> list[tuple[str, str]]:
    """Connections between fields of one name."""
    return [(name, name) for name in names]


def into(*names: str) -> list[tuple[str, str]]:
    """Connections from a node's fields to a workflow's."""
    return [(name, f"inputnode.{name}") for name in names]


def across(*names: str) -> list[tuple[str, str]]:
    """Connections from a workflow's fields to another one's."""
    return [(f"outputnode.{name}", f"inputnode.{name}") for name in names]


def set_inputs(node: pe.Node, *params: Params) -> pe.Node:
    """Give a node every field of the params objects; returns the node."""
    for stage in params:
        for f in fields(stage):
            value = getattr(stage, f.name)
            setattr(node.inputs, f.name, list(value) if isinstance(value, tuple) else value)
    return node


def whole_batches(chunk_size: int, diffusion: DiffusionParams) -> int:
    """`chunk_size` rounded up to whole batches of stimuli: then chunks give the bits of one run over all."""
    batch = diffusion.stimuli_per_batch
    return -(-chunk_size // batch) * batch


def split_chunks(stimulus_ids, size):
    """Consecutive lists of at most `size` ids (self-contained: nipype ships its source to a worker)."""
    return [stimulus_ids[start : start + size] for start in range(0, len(stimulus_ids), size)]


def stimuli_alone(source):
    """A source as nodes see it that read images and captions alone: other betas are the same (self-contained)."""
    return {name: value for name, value in source.items() if name != "stamp"}


def flatten(lists):
    """One list from a list of lists (self-contained, as above)."""
    return [item for part in lists for item in part]
