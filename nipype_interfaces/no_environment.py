"""Keeps environment variables, tokens among them, out of every file that Nipype writes for a node.

Nipype copies the whole environment to `runtime.environ` of each result and writes it to `result_<node>.pklz` and, in
clear, to `_report/report.rst`; no option turns that off.  Two things keep it out.

- `NoEnvironment`: an interface forgets its copy before it runs, so that neither its report nor its result has it.
- A MapNode that fails, and a node whose results are collected again, make results of their own behind the interface's
  back: how a result's runtime is pickled is registered here, for every process that opens one of our interfaces.  That
  is every worker and every batch job that runs one, as a pickled node names the module of its interface.

Utility nodes of our workflows therefore come from here and not from `nipype.interfaces.utility`.
"""

import copyreg
from copy import deepcopy
from typing import Any

from nipype.interfaces import utility
from nipype.interfaces.base import isdefined
from nipype.interfaces.base.support import Bunch


class NoEnvironment:
    """Mixin, named before the Nipype class, that keeps the copy of the environment out of the interface's result.

    It is for interfaces that compute in Python: a `CommandLine` interface gives its copy to the command.
    """

    def _pre_run_hook(self, runtime: Bunch) -> Bunch:
        runtime = super()._pre_run_hook(runtime)  # type: ignore[misc]  # of the Nipype class named behind it
        runtime.environ = {}
        return runtime


class Function(NoEnvironment, utility.Function):
    """Nipype's Function, without the environment in its result."""


class IdentityInterface(NoEnvironment, utility.IdentityInterface):
    """Nipype's IdentityInterface, without the environment in its result; its fields may say what they want."""

    told: dict[str, Any] | None = None

    def tell(self, traits: dict[str, Any]) -> None:
        """Give fields types and descriptions; values that they have must fit."""
        self.told = {**(self.told or {}), **traits}
        for name, trait in traits.items():
            value = getattr(self.inputs, name)
            self.inputs.add_trait(name, trait)
            if isdefined(value):
                setattr(self.inputs, name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> "IdentityInterface":
        # traits forget what was added to one object when it is copied
        made = memo[id(self)] = type(self).__new__(type(self))
        made.__dict__.update({name: deepcopy(value, memo) for name, value in vars(self).items() if name != "told"})
        made.tell(self.told or {})
        return made


class Merge(NoEnvironment, utility.Merge):
    """Nipype's Merge, without the environment in its result."""


def _reduce(bunch: Bunch) -> tuple:
    """Take a Bunch apart as `pickle` and `copy` do by themselves, but a runtime without its environment."""
    rebuild, arguments, state, *rest = bunch.__reduce_ex__(2)
    # other Bunches are data of an interface and stay as they are
    if state and {"environ", "hostname"} <= set(state):
        state = {**state, "environ": {}}
    return rebuild, arguments, state, *rest


copyreg.pickle(Bunch, _reduce)
