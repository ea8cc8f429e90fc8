"""The family of guidance rules: where a gradient enters a step.

Each is a few lines: what its paper multiplies the gradient A by z_t and the correction D of the clean estimate by.  How
A and D come about is the same for all (guidance.py).  `base.registry.GUIDANCE_RULES` maps `GuidanceParams.rule` to a
`Rule`, so that another rule is one more.

With `normalise="rms"` the sizes are not the papers' but one for all of them: a term moves z_{t-1} by `guidance_scale`
(D by the scale that `Rule.leaf` names) times what eps_c - eps_u moves it by, in root mean square.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from napari_neuraldiffuser.core.base.fields import that_matter
from napari_neuraldiffuser.core.diffusion.critic import Pull
from napari_neuraldiffuser.core.diffusion.loop import Prediction, Step
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.params import GuidanceParams

Coefficient = float | torch.Tensor
Update = Callable[[Prediction, Pull, Step, GuidanceParams], Prediction]
"""The prediction with the pull in it."""


def of_estimate(step: Step) -> float:
    """How far z_{t-1} moves with the clean estimate where the noise is held, sqrt(abar_prev)."""
    return step.abar_prev**0.5


def of_noise(step: Step) -> float:
    """How far z_{t-1} moves with the noise (method.md eq. 36), without its sign."""
    return abs(ops.step_coefficients(step.abar, step.abar_prev)[1])


def as_noise(step: Step) -> float:
    """How far z_{t-1} moves with the clean estimate where the noise goes with it."""
    return of_noise(step) * (step.abar / (1 - step.abar)) ** 0.5


@dataclass(frozen=True)
class Rule:
    """Where a pull enters a step, and what the rule needs of it.

    Attributes
    ----------
    update : function of (prediction, pull, step, params) that returns a Prediction
        It may add terms to the noise (`pull`), and to z_{t-1} (`shift`).
    through : bool
        Whether the gradient is one by z_t, through the UNet.
    leaf : str
        The field of the params that weighs steps on the clean estimate as a leaf; "" where there are none.
    reach : function of step
        How far z_{t-1} moves with the correction that these steps make.
    """

    update: Update
    through: bool = True
    leaf: str = ""
    reach: Callable[[Step], float] = of_estimate


def noise_rule(prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Prediction:
    """eps += sqrt(1-abar) kappa A, or by rms (NeuralDiffuser, Li et al. 2025; method.md eq. 34-35)."""
    weight = of_gradient(prediction, pull, step, params, (1 - step.abar) ** 0.5, of_noise(step))
    return prediction.but(pull=((weight, pull.gradient),))


def dps_rule(prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Prediction:
    """z_{t-1} -= rho A (DPS, Chung et al. 2023, arXiv 2209.14687, algorithm 1, with one step size; method.md eq. 72).

    LGD (Song et al. 2023, ICML, "Loss-Guided Diffusion Models") is the same with A of noisy copies.
    """
    return prediction.but(shift=((-of_gradient(prediction, pull, step, params, 1.0, 1.0), pull.gradient),))


def freedom_rule(prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Prediction:
    """z_{t-1} -= rho_t A, rho_t = kappa rms(eps_c - eps_u) / rms(A) (FreeDoM, arXiv 2303.09833; method.md eq. 74)."""
    reach = 1.0 if params.normalise == "rms" else of_noise(step)
    weight = relative(params.guidance_scale, pull.gradient, prediction, step, params, reach)
    return prediction.but(shift=((-weight, pull.gradient),))


def mpgd_rule(prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Prediction:
    """x0 += D, then DDIM from it with the noise as it was (MPGD, arXiv 2311.16424; method.md eq. 75)."""
    weight = of_correction(MPGD, prediction, pull, step, params, of_estimate(step))
    return prediction.but(shift=((weight, pull.correction),))


def ugd_rule(prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Prediction:
    """eps += sqrt(1-abar) kappa A - sqrt(abar / (1-abar)) D (UGD, arXiv 2302.07121, alg. 1; method.md eq. 76)."""
    forward = of_gradient(prediction, pull, step, params, (1 - step.abar) ** 0.5, of_noise(step))
    backward = of_correction(UGD, prediction, pull, step, params, (step.abar / (1 - step.abar)) ** 0.5)
    return prediction.but(pull=((forward, pull.gradient), (-backward, pull.correction)))


def tfg_rule(prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Prediction:
    """z_{t-1} += -rho A / sqrt(alpha_t) + sqrt(abar_prev) D (TFG, arXiv 2409.15761, alg. 1; method.md eq. 77)."""
    through = of_gradient(prediction, pull, step, params, (step.abar_prev / step.abar) ** 0.5, 1.0)
    leaf = of_correction(TFG, prediction, pull, step, params, of_estimate(step))
    return prediction.but(shift=((-through, pull.gradient), (leaf, pull.correction)))


NOISE, DPS, FREEDOM = Rule(noise_rule), Rule(dps_rule), Rule(freedom_rule)
MPGD = Rule(mpgd_rule, through=False, leaf="guidance_scale")
UGD = Rule(ugd_rule, leaf="leaf_scale", reach=as_noise)
TFG = Rule(tfg_rule, leaf="leaf_scale")


def of_gradient(
    prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams, paper: float, reach: float
) -> Coefficient:
    """What the gradient is multiplied by: `paper` times kappa, or by rms, where z_{t-1} moves by `reach` times it."""
    if params.normalise == "rms":
        return relative(params.guidance_scale, pull.gradient, prediction, step, params, reach)
    return paper * params.guidance_scale * phase(step, params) / pull.scale


def of_correction(
    rule: Rule, prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams, paper: float
) -> Coefficient:
    """What the correction is multiplied by: `paper`, or that times what makes it as large as its scale says."""
    if params.normalise == "rms":
        scale = getattr(params, rule.leaf)
        return paper * relative(scale, pull.correction, prediction, step, params, rule.reach(step))
    return paper


def leaf_step(rule: Rule, prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Coefficient:
    """Step size mu of one of `leaf_steps` steps on the clean estimate, for a pull whose gradient is by that."""
    scale = getattr(params, rule.leaf)
    if params.normalise == "rms":
        return relative(scale / leaf_steps(params), pull.gradient, prediction, step, params, rule.reach(step))
    return scale * phase(step, params) / pull.scale


def leaf_steps(params: GuidanceParams) -> int:
    """Steps on the clean estimate, one where the rule has no number of them."""
    return int(that_matter(params).get("leaf_steps", 1))


def relative(
    scale: float, tensor: torch.Tensor, prediction: Prediction, step: Step, params: GuidanceParams, reach: float
) -> torch.Tensor:
    """Coefficient (B,) of a term, so that it moves z_{t-1} by `scale` times what eps_c - eps_u moves it by (in rms).

    `reach` is how far z_{t-1} moves with the term (method.md eq. 78-79).
    No gradient, no pull; where something overflowed, the tensors themselves carry it on.
    """
    spread, size = rms(prediction.noise_cond - prediction.noise_uncond), rms(tensor)
    return (scale * phase(step, params) * (of_noise(step) / reach) * spread / size).nan_to_num(0, 0, 0)


def phase(step: Step, params: GuidanceParams) -> float:
    """What strength is multiplied by at guided step i of m, 1 in the mean over them.

    1 (constant), 2 (m - i) / (m + 1) (fading) or 2 (i + 1) / (m + 1) (growing).
    """
    m = n_guided_steps(step.n_steps, params)
    left = {"constant": (m + 1) / 2, "fading": m - step.index, "growing": step.index + 1}[params.phase]
    return 2 * left / (m + 1)


def n_guided_steps(n_steps: int, params: GuidanceParams) -> int:
    """`int(eta * executed steps)` (24 of 37 at the defaults); none when kappa is 0 (method.md eq. 29)."""
    return int(n_steps * params.guidance_strength) if params.guidance_scale > 0 else 0


def rms(values: torch.Tensor) -> torch.Tensor:
    """Root mean square per image, (B,) float64."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    norm = torch.linalg.vector_norm(values.flatten(1), dim=1, dtype=dtype)
    return norm.double() / values[0].numel() ** 0.5
