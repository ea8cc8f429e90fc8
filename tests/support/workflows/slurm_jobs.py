"""A node, the plugin that runs it, and what its job left."""

from nipype.pipeline import engine as pe
from nipype.utils.filemanip import savepkl

from nipype_interfaces.no_environment import Function
from nipype_interfaces.slurm.engine import WatchedSLURMPlugin
from tests.support.workflows.small_workflows import ok

TIMEOUT = 30.0


def made_plugin(clock, **plugin_args):
    made = WatchedSLURMPlugin(plugin_args={"poll_seconds": 1, "patience_seconds": 100, **plugin_args})
    made._config = {"execution": {"job_finished_timeout": str(TIMEOUT)}}
    made._answered = clock.now
    return made


def node(name="one", base=None, **inputs):
    made = pe.Node(Function(function=ok), name=name, base_dir=base and str(base))
    made.inputs.trait_set(**inputs)
    return made


def write_result(task, value="done", traceback=None):
    savepkl(str(task.result), {"result": value, "traceback": traceback, "hostname": "n0"})


def message(result):
    return result["traceback"][-1]
