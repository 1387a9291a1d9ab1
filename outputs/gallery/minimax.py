"""Draws minimax.png: python outputs/gallery/minimax.py NONSATURATING_RUN SATURATING_RUN."""

import json
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from gan_runner.losses import Loss, Minimax, NonSaturating

figure = Figure(figsize=(12, 3.6), dpi=80, layout="constrained")
curve, slope, norms = figure.subplots(1, 3)
losses: dict[str, Loss] = {"non-saturating, −log D": NonSaturating(), "minimax, log(1 − D)": Minimax()}
for (label, loss), run in zip(losses.items(), sys.argv[1:], strict=True):
    logits = torch.linspace(-7, 7, 400, requires_grad=True)
    terms = loss.generator(logits)
    (gradient,) = torch.autograd.grad(terms.sum(), logits)
    curve.plot(logits.detach().sigmoid(), terms.detach(), label=label)
    slope.plot(logits.detach().sigmoid(), gradient.abs())
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    norms.plot([row["step"] for row in rows], [row["gradient_norm/generator"] for row in rows], linewidth=0.8)
curve.set(xlabel="D(G(z))", title="the generator's loss", ylim=(-5, 5))
slope.set(xlabel="D(G(z))", title="size of its gradient to the logit")
norms.set(xlabel="step", title="norm of the generator's gradient", yscale="log")
curve.legend(fontsize=8)
figure.savefig(Path(__file__).with_suffix(".png"))
