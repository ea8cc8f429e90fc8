"""The compiled operations in float64, from their definitions: NumPy only, nothing of csrc/ or core/ is used.

Each function returns the exact values and, where sums cancel, the magnitude that their rounding errors scale with.
"""

import numpy as np
import torch


def numpy64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def feature_loss(features, targets, weights, grad_scale=1.0):
    """L_b = sum_l w_bl mean((f_bl - g_bl)^2), shape (B,), and grad_scale dL_b/df_bl of every layer."""
    weights = numpy64(weights)
    batch = len(features[0])
    loss, grads = np.zeros(batch, np.longdouble), []
    for layer, (feature, target) in enumerate(zip(features, targets, strict=True)):
        difference = numpy64(feature) - numpy64(target)
        w = np.broadcast_to(weights[:, layer], batch)
        flat = difference.reshape(batch, -1)
        loss += w * np.mean(np.square(flat, dtype=np.longdouble), axis=1)
        grads.append((grad_scale * 2 * w[:, None] * flat / flat.shape[1]).reshape(difference.shape))
    return loss.astype(float), grads


def guided_step(terms, coefficients):
    """sum_i c_i t_i with coefficients (K,) or (B or 1, K), and sum_i |c_i t_i|."""
    coefficients = np.asarray(coefficients, float)
    terms = [numpy64(term) for term in terms]
    if coefficients.ndim == 1:
        columns = coefficients
    else:
        columns = [c.reshape(-1, *[1] * (terms[0].ndim - 1)) for c in coefficients.T]
    products = [c * term.astype(np.longdouble) for c, term in zip(columns, terms, strict=True)]
    return sum(products).astype(float), sum(map(np.abs, products)).astype(float)


def resize_matrix(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in): a triangle as wide as the larger of an input and an output pixel, rows normalised."""
    scale = n_in / n_out
    center = (np.arange(n_out)[:, None] + 0.5) * scale
    weights = np.clip(1 - np.abs(np.arange(n_in) + 0.5 - center) / max(scale, 1.0), 0, None)
    return weights / weights.sum(1, keepdims=True)


def _channels(values) -> np.ndarray:
    return np.reshape(np.asarray(values, float), (3, 1, 1))


def prepare_image(image, size, mean, std):
    """(resize(clamp((x + 1) / 2, 0, 1)) - mean) / std, and the sum of the magnitudes subtracted."""
    image01 = np.clip((numpy64(image) + 1) / 2, 0, 1)
    rows, columns = (resize_matrix(n, size) for n in image01.shape[-2:])
    resized, shift, scale = rows @ image01 @ columns.T, _channels(mean), _channels(std)
    return (resized - shift) / scale, (resized + np.abs(shift)) / scale


def prepare_image_backward(grad, image, size, std):
    """The transposed resize of grad / std, halved, zero where the clamp cut; and its magnitude."""
    pixel = numpy64(image)
    rows, columns = (resize_matrix(n, size) for n in pixel.shape[-2:])
    inside = (pixel >= -1) & (pixel <= 1)
    upstream = numpy64(grad) / _channels(std)
    exact = rows.T @ upstream @ columns
    magnitude = _at_least_average(rows).T @ np.abs(upstream) @ _at_least_average(columns)
    return 0.5 * np.where(inside, exact, 0), 0.5 * np.where(inside, magnitude, 0)


def _at_least_average(weights):
    # a weight at the foot of its triangle is a small difference of positions: its error is that of a large weight
    taps = weights > 0
    return weights + taps / taps.sum(1, keepdims=True)


def _sigmoid(u):
    small = np.exp(-np.abs(u))
    return np.where(u >= 0, 1, small) / (1 + small)


class GroupNorm:
    """GroupNorm, then SiLU: y = u sigmoid(u), u = (x - mean) / sqrt(var + eps) * weight + bias."""

    def __init__(self, x, weight, bias, groups, eps=1e-5, silu=True):
        self.silu, self.shape = silu, x.shape
        batch, channels = x.shape[:2]
        self.x = numpy64(x).reshape(batch, groups, channels // groups, -1)
        self.mean = self.x.mean((2, 3), keepdims=True)
        variance = np.square(self.x - self.mean).mean((2, 3), keepdims=True)
        self.rstd = 1 / np.sqrt(variance + eps)
        self.weight, self.bias = (numpy64(v).reshape(1, groups, -1, 1) for v in (weight, bias))
        self.xhat = (self.x - self.mean) * self.rstd
        self.u = self.xhat * self.weight + self.bias
        # one rounding of x or of the mean moves xhat by this many units
        self.lever = (np.abs(self.x) + np.abs(self.mean)) * self.rstd

    def forward(self):
        value = self.u * _sigmoid(self.u) if self.silu else self.u
        magnitude = (1 + self.lever) * np.abs(self.weight) + np.abs(self.bias) + np.abs(value)
        return value.reshape(self.shape), magnitude.reshape(self.shape)

    def statistics(self):
        """mean and rstd, each (B, groups)."""
        return self.mean[:, :, 0, 0], self.rstd[:, :, 0, 0]

    def backward(self, grad):
        """dL/dx, and the magnitude of its three parts with their dependence on a rounded xhat."""
        grad = numpy64(grad).reshape(self.x.shape)
        s = _sigmoid(self.u)
        slope = s * (1 + self.u * (1 - s)) if self.silu else np.ones_like(s)
        d = grad * slope * self.weight
        tilt = (d * self.xhat).mean((2, 3), keepdims=True)
        exact = self.rstd * (d - d.mean((2, 3), keepdims=True) - self.xhat * tilt)
        lever = 1 + self.lever
        size = np.abs(grad * self.weight) * (1 + (np.abs(self.weight) * lever + np.abs(self.bias)) * self.silu)
        mean_size = size.mean((2, 3), keepdims=True)
        mean_tilt = (size * np.abs(self.xhat) + np.abs(d) * lever).mean((2, 3), keepdims=True)
        magnitude = self.rstd * (size + mean_size + lever * mean_tilt)
        return exact.reshape(self.shape), magnitude.reshape(self.shape)
