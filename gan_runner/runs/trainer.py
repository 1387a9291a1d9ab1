"""The training loop: Algorithm 1 of Goodfellow et al., "Generative Adversarial Networks" (2014), and what it needs to
be measured, watched, stopped and continued exactly.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gan_runner import pictures
from gan_runner.batches import draw_latent
from gan_runner.config.schema import Config
from gan_runner.console import Progress, in_short, say
from gan_runner.datasets import DataFacts, Dataset, Gaussian1D
from gan_runner.errors import UserError
from gan_runner.evaluation.evaluation import Evaluation, Report, choose_objective
from gan_runner.health.context import RuleContext
from gan_runner.health.doctor import Doctor
from gan_runner.health.rules import Finding
from gan_runner.machine.devices import Ranks, peak_memory
from gan_runner.metrics import Goal
from gan_runner.networks.running import apply, evaluated
from gan_runner.observers import theory
from gan_runner.randomness import derive, rng
from gan_runner.runs import checkpoint
from gan_runner.runs.building import Parts, build_parts
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.logger import Logger, Row
from gan_runner.runs.objectives import DiscriminatorObjective, GeneratorObjective
from gan_runner.runs.optimization import MovingAverage, lay_out, learning_rate_factor


class Diverged(Exception):
    """The training went off course: a number is not finite, or the doctor found what `trainer.stop_on` names."""


class NotFinite(Diverged):
    """A loss or a weight is no longer a finite number."""


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


class Trainer:
    """One run: two networks, their optimizers, and the step they have reached."""

    def __init__(self, config: Config, dataset: Dataset, ranks: Ranks) -> None:
        # The experiment
        self.config = config
        self.settings = config.trainer
        self.dataset = dataset
        self.facts = DataFacts.of(dataset)
        self.ranks = ranks
        self.conditional = config.architecture.conditional

        # What is trained
        self.parts: Parts = build_parts(config, self.facts, ranks.device)
        if config.device.sync_batchnorm:
            self.parts.generator = nn.SyncBatchNorm.convert_sync_batchnorm(self.parts.generator)
            self.parts.discriminator = nn.SyncBatchNorm.convert_sync_batchnorm(self.parts.discriminator)
        self.generator, self.discriminator = self.parts.generator, self.parts.discriminator
        self.trains_generator = "generator" in self.parts.optimizers
        self.ema = None
        if self.settings.ema_decay is not None and self.trains_generator:
            self.ema = MovingAverage(self.generator, self.settings.ema_decay)
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.parts.optimizers.items()
        }
        self.learning_rates = {name: o.param_groups[0]["lr"] for name, o in self.parts.optimizers.items()}
        self.discriminator_objective = self._parallel(DiscriminatorObjective(self.parts, self.settings))
        self.generator_objective = self._parallel(GeneratorObjective(self.parts, self.settings))

        # What it is measured by, on the main process alone
        self.evaluation = ranks.main_alone(Evaluation, config, dataset, ranks.device)
        self.objective = ranks.on_main(choose_objective, self.evaluation, self.settings.objective)

        # Where it stands
        self.step = 0
        self.penalties: dict[str, Tensor] = {}  # the newest value of each regularizer, which may be lazy
        self.evolution: list[Tensor] = []  # for vectors: one sample from fixed noise at each sampled step
        self.report = Report()  # of the newest evaluation
        self.doctor: Doctor | None = None  # the main process's alone, while it trains
        self.told: dict[str, Any] | None = None  # of its newest report
        self._stop = False

    def _parallel(self, objective: nn.Module) -> Callable[..., dict[str, Tensor]]:
        ids = self.ranks.data_parallel_ids
        return nn.DataParallel(objective, device_ids=ids) if len(ids) > 1 else objective

    # The algorithm

    def fit(self, run: RunDirectory | None, logger: Logger | None) -> None:
        """Trains from the step it has reached to the last; `run` and `logger` are the main process's alone.

        Raises `Diverged` and `Interrupted`.
        """
        settings, k = self.settings, self.settings.discriminator_steps
        self.run, self.logger, self.clock = run, logger, Clock(self.step)
        self.progress = Progress("step", settings.steps, self.step) if self.ranks.is_main else None
        if logger is not None and self.config.doctor is not None:
            with self._surviving_the_doctor():
                self.doctor = Doctor(self.rule_context(), logger.rows)
        try:
            self._stop_on_findings()  # a run that has stopped does not go on because it is started again
            for step in range(self.step + 1, settings.steps + 1):
                logs = self._is_time(settings.log_every, step)
                noise = rng(self.config.seed, "noise", step)
                self.ranks.seed(derive(self.config.seed, "network", step, self.ranks.rank))
                self._set_learning_rates(step)

                # Update the discriminator k times, each on a new batch of samples and of noise …
                for number in range((step - 1) * k, step * k):
                    real, fake = self._draw_real(number), self._draw_noise(noise)
                    discriminator = self._update_discriminator(number, real, fake, logs)

                # … then the generator once.
                generator: dict[str, Tensor] = {}
                if self.trains_generator and step > settings.generator_start:
                    fake = fake if settings.generator_noise == "reused" else self._draw_noise(noise)
                    generator = self._update_generator(real, fake, logs)
                    if self.ema is not None:
                        self.ema.update()

                self.step = step
                self._log_and_sample(discriminator, generator)
                self._save_and_stop()
                self._stop_on_findings()
        except NotFinite as error:
            if self.doctor is not None:
                with self._surviving_the_doctor():
                    self._tell([self.doctor.diverged(self.step, str(error))])
            raise
        finally:
            if self.progress is not None:
                self.progress.close()

    def _is_time(self, every: int, step: int) -> bool:
        """Whether `step` is one of every so many, or the last."""
        return step % every == 0 or step == self.settings.steps

    def _update_discriminator(
        self, number: int, real: Sequence[Tensor | None], fake: Sequence[Tensor | None], logs: bool
    ) -> dict[str, Tensor]:
        """Ascends the discriminator's objective once, or once for real and once for fake; returns what was computed."""
        due = [name for name, regularizer in self.parts.regularizers.items() if number % regularizer.interval == 0]
        uniform = self._draw_uniform(number) if due else None
        joint = self.settings.discriminator_update == "joint"
        results: dict[str, Tensor] = {}
        for sides in [("real", "fake")] if joint else [("real",), ("fake",)]:
            terms = self.discriminator_objective(*real, *fake, uniform, sides, due if "fake" in sides else [])
            loss = torch.stack([terms[f"discriminator_{side}"].mean() for side in sides]).sum()
            for name in due if "fake" in sides else []:
                regularizer = self.parts.regularizers[name]
                penalty = regularizer.weight * terms[name].mean()
                # Applied every `interval` updates, it is as strong as if it were applied at each (StyleGAN2, B).
                loss = loss + regularizer.interval * penalty
                self.penalties[name] = penalty.detach()
            norm = self._descend("discriminator", loss, logs)
            results |= {name: term.detach() for name, term in terms.items()} | norm
        return results

    def _update_generator(
        self, real: Sequence[Tensor | None], fake: Sequence[Tensor | None], logs: bool
    ) -> dict[str, Tensor]:
        """Descends the generator's objective once."""
        term = self.generator_objective(*real, *fake)["generator"]
        return {"generator": term.detach()} | self._descend("generator", term.mean(), logs)

    def _descend(self, name: str, loss: Tensor, logs: bool) -> dict[str, Tensor]:
        """One optimizer step of one network; the norm of its gradient (before clipping) where it is wanted."""
        optimizer, parameters = self.parts.optimizers[name], self.parameters[name]
        optimizer.zero_grad()
        loss.backward(inputs=parameters)  # the other network's weights get no gradient, which saves time
        self.ranks.average_gradients(parameters)
        norm = {}
        if logs or self.settings.gradient_clip is not None:
            limit = self.settings.gradient_clip or math.inf
            norm = {f"gradient_norm/{name}": nn.utils.clip_grad_norm_(parameters, limit)}
        optimizer.step()
        return norm

    # What a step is made of

    def _draw_real(self, number: int) -> tuple[Tensor, Tensor | None]:
        """This process's share of global batch `number`, and its labels where the networks are to see them."""
        size = self.settings.batch_size
        images, labels = self.dataset.batch(number, size, self.config.seed, self.ranks.part(size))
        return self._to_device(images), self._to_device(labels) if self.conditional and labels is not None else None

    def _draw_noise(self, noise: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """This process's share of a global batch of latents, and of labels drawn at random."""
        size = self.settings.batch_size
        latent = draw_latent(self.config.architecture.latent, size, noise)
        if not self.conditional:
            return self._share(latent), None
        return self._share(latent), self._share(torch.randint(self.facts.num_classes, (size,), generator=noise))

    def _draw_uniform(self, number: int) -> Tensor:
        """This process's share of one number in [0, 1) for each sample of global batch `number`."""
        return self._share(torch.rand(self.settings.batch_size, generator=rng(self.config.seed, "uniform", number)))

    def _share(self, of_global_batch: Tensor) -> Tensor:
        return self._to_device(of_global_batch[self.ranks.part(self.settings.batch_size)])

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.ranks.device, non_blocking=True)

    def _set_learning_rates(self, step: int) -> None:
        optimizer = self.config.optimizer
        if optimizer.schedule == "constant" and step > optimizer.warmup_steps + 1:
            return
        factor = learning_rate_factor(optimizer.schedule, optimizer.warmup_steps, step, self.settings.steps)
        for name, rate in self.learning_rates.items():
            for group in self.parts.optimizers[name].param_groups:
                group["lr"] = rate * factor

    # What a run leaves

    def _log_and_sample(self, discriminator: Mapping[str, Tensor], generator: Mapping[str, Tensor]) -> None:
        """Logs the losses of this step, and samples and evaluates the generator, where it is time to."""
        step, settings = self.step, self.settings
        row: Row = {}
        if self._is_time(settings.log_every, step):
            row = self._losses(discriminator, generator) | self.clock.speed(step, settings.batch_size)
        if self._is_time(settings.sample_every, step) and self.ranks.is_main:
            row |= self._sample()
            if self.doctor is not None:
                with self._surviving_the_doctor():
                    row |= self.doctor.examine(self.samples, self.generator_to_sample, self.discriminator)
        if self._is_time(settings.evaluate_every, step) and self.ranks.is_main:
            row |= self._evaluate()
        if row and self.logger is not None and self.progress is not None:
            self.logger.write(step, row)
            self.progress.show(step, in_short(row))
            if self.doctor is not None:
                with self._surviving_the_doctor():
                    new = self.doctor.take(self.logger.rows[-1])
                    if self._is_time(settings.sample_every, step):
                        self._tell(new)
            self._keep_if_best(row)
            self.clock.restart(step)

    def _save_and_stop(self) -> None:
        """Saves where it is time to or where the run was asked to stop, which it then does."""
        last, stops = self.step == self.settings.steps, self._asked_to_stop()
        if stops or self._is_time(self.settings.checkpoint_every, self.step):
            self._save(must_succeed=last or stops)
            self.clock.restart(self.step)
        if stops and not last:
            raise Interrupted

    @contextmanager
    def _surviving_the_doctor(self) -> Iterator[None]:
        """What fails in the doctor is said, and no reason to end a training."""
        try:
            yield
        except Exception as error:
            say(f"warning: the doctor fails, and is sent away: {type(error).__name__}: {error}")
            self.doctor = None

    def _tell(self, findings: Sequence[Finding]) -> None:
        """Says what the doctor found for the first time, and keeps what it makes of the run where that is new."""
        assert self.run is not None
        assert self.logger is not None
        assert self.doctor is not None
        for finding in findings:
            say(f"doctor: {finding}")
            self.logger.text(f"health/{finding.name}", str(finding), finding.step)
        report = self.doctor.report()
        news = {key: value for key, value in report.items() if key != "step"}
        if news != self.told or self.step == self.settings.steps:  # to write it at each look takes 3 % of a small run
            self.told = news
            self.run.write_json("health.json", report)

    def _stop_on_findings(self) -> None:
        """Saves and ends the run where the doctor found what it is to stop on, while there is something to stop."""
        settings = self.settings
        if not settings.stop_on or self.step == settings.steps or self.step % settings.sample_every:
            return
        found = [name for name in self.doctor.present if name in settings.stop_on] if self.doctor is not None else []
        if self.ranks.any(bool(found)):
            self._save(must_succeed=False)
            raise Diverged(f"the doctor found {', '.join(found)}, on which it is to stop")

    def _losses(self, discriminator: Mapping[str, Tensor], generator: Mapping[str, Tensor]) -> Row:
        """What is logged, the same in all processes; the only place where a step waits for the device."""
        real, fake = discriminator["real_logits"], discriminator["fake_logits"]
        sums = {
            "loss/discriminator_real": discriminator["discriminator_real"].mean(),
            "loss/discriminator_fake": discriminator["discriminator_fake"].mean(),
            **{f"loss/{name}": penalty for name, penalty in self.penalties.items()},
        }
        tensors = {"loss/discriminator": torch.stack([term.float() for term in sums.values()]).sum(), **sums}
        if generator:
            tensors["loss/generator"] = generator["generator"].mean()
        tensors |= {"score/real": real.sigmoid().mean(), "score/fake": fake.sigmoid().mean()}
        if self.parts.loss.density_ratio:
            # V = E log D(x) + E log(1 - D(G(z))) <= -log 4 + 2 JSD, with equality at the best D (Goodfellow, Theorem 1)
            value = logsigmoid(real).mean() + logsigmoid(-fake).mean()
            tensors["divergence/jsd_estimate"] = (value + math.log(4)) / 2
        tensors |= {k: v for k, v in {**discriminator, **generator}.items() if k.startswith("gradient_norm/")}
        logits = torch.cat([real, fake])
        tensors |= {"logits/std": logits.std(), "logits/gap": (real.mean() - fake.mean()).abs()}
        values = self.ranks.mean(torch.stack([t.float().reshape(()) for t in tensors.values()])).tolist()
        row = dict(zip(tensors, values, strict=True))
        for tag, value in row.items():
            if not math.isfinite(value):
                raise NotFinite(f"{tag} is {value}")
        row["memory/peak_mib"] = peak_memory(self.ranks.device) / 2**20
        return row

    @property
    def generator_to_sample(self) -> nn.Module:
        """The generator's average, where there is one."""
        return self.generator if self.ema is None else self.ema.module

    @torch.no_grad()
    def samples(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the generator (its average, where there is one) makes of CPU inputs in eval mode, on the CPU."""
        network = self.generator_to_sample
        with evaluated(network):
            return apply(network, self._to_device(z), None if labels is None else self._to_device(labels)).float().cpu()

    def _generate(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.facts.in_data_units(self.samples(z, labels))

    def _sample(self) -> Row:
        """Writes the grid of this step from the fixed noise; for the theory, a picture of the densities."""
        assert self.run is not None
        assert self.logger is not None
        columns = self.settings.sample_columns
        rows = self.facts.num_classes if self.conditional else self.settings.sample_rows
        noise = rng(self.config.seed, "grid")
        z = draw_latent(self.config.architecture.latent, rows * columns, noise)
        labels = torch.arange(rows).repeat_interleave(columns) if self.conditional else None
        made = self._generate(z, labels)
        if len(self.facts.shape) == 1 and self.step % self.settings.sample_every == 0:
            self.evolution.append(made[0])

        row: Row = {}
        if isinstance(self.dataset, Gaussian1D):
            z = draw_latent(self.config.architecture.latent, theory.SAMPLES, noise)
            gap, picture = theory.compare(self.dataset, self._generate(z, None), self.discriminator)
            if math.isfinite(gap):  # else the losses will tell, in all processes
                row["theory/discriminator_gap"] = gap
        elif self.facts.shape == (2,):
            real, _ = self.dataset.batch(0, len(made), self.config.seed)
            picture = pictures.scatter(real.cpu(), made)
        else:
            picture = pictures.grid(made, columns)
        pictures.save(self.run.path / "samples" / f"step_{self.step:08d}.png", picture)
        self.logger.image("samples/grid", picture, self.step)
        return row

    def _evaluate(self) -> Row:
        """Holds the generator against the data; evaluation.json has the newest figures with all they depend on."""
        assert self.run is not None
        assert self.logger is not None
        assert self.evaluation is not None
        last = self.step == self.settings.steps
        report = self.report = self.evaluation(self._generate, self.config.seed, last, self.progress)
        if not report.figures and not report.failures:
            return {}
        row = report.row()
        content = {"step": self.step, **report.to_json()}
        if self.objective is not None:
            tag, goal = self.objective
            rows = [*self.logger.rows, {"step": self.step, **row}]
            found = best(rows, tag, goal) or {"step": self.step, tag: None}
            if found[tag] is not None or tag.removeprefix("metric/") in report.figures:  # undefined, but no failure
                content["objective"] = {"figure": tag, "goal": goal, "value": found[tag], "step": found["step"]}
        try:
            self.run.write_json("evaluation.json", content)
            for name, picture in report.pictures.items():
                pictures.save(self.run.path / "evaluation" / f"{name}.png", picture)
                self.logger.image(f"evaluation/{name}", picture, self.step)
        except OSError as error:
            say(f"warning: the evaluation at step {self.step} is not kept: {error.strerror}")
        return row

    def _keep_if_best(self, row: Row) -> None:
        """Keeps the state of this step where its objective is the best so far, the newest of several as good.

        An evaluation out of turn, at the last step, does not count: a longer run would not have had it.
        """
        if self.run is None or self.logger is None or self.objective is None:
            return
        tag, goal = self.objective
        if tag not in row or self.step % self.settings.evaluate_every:
            return
        newest = best(self.logger.rows, tag, goal)
        if newest is not None and newest["step"] == self.step:
            try:
                checkpoint.save_best(self.run.path / "checkpoints", self.step, self.state())
            except OSError as error:
                say(f"warning: the best checkpoint, of step {self.step}, is not kept: {error.strerror}")

    def _save(self, must_succeed: bool) -> None:
        """Writes a checkpoint; where the disk is full, says so and goes on with the last good one, if it may."""
        if not checkpoint.all_finite(p for ps in self.parameters.values() for p in ps):
            raise NotFinite("a weight is not finite")
        if self.penalties:  # each process holds that of its own share; a resumed run starts from the mean
            means = self.ranks.mean(torch.stack(list(self.penalties.values())))
            self.penalties = dict(zip(self.penalties, means.unbind(), strict=True))
        if self.run is None or self.logger is None:
            return
        try:
            self.logger.flush()
            if self.trains_generator:  # before the checkpoint, after which the last step is not taken again
                weights = checkpoint.dump({**self.generator_to_sample.state_dict(), "step": self.step})
                checkpoint.write_atomically(self.run.path / "generator.safetensors", weights)
            checkpoint.save(self.run.path / "checkpoints", self.step, self.state(), self.settings.keep_checkpoints)
            self.run.write_json("status.json", {"state": "running", "step": self.step})
        except OSError as error:
            if must_succeed:
                raise
            say(f"warning: no checkpoint at step {self.step}: {error.strerror}; the last good one is kept")

    def state(self) -> checkpoint.State:
        """Everything that the next step depends on and that is not a function of (seed, step)."""
        state: checkpoint.State = {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": {name: o.state_dict()["state"] for name, o in self.parts.optimizers.items()},
            "penalties": self.penalties,
        }
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        if self.evolution:
            state["evolution"] = torch.stack(self.evolution)
        return state

    def load_networks(self, state: checkpoint.State, source: str) -> None:
        """Takes the weights of a checkpoint; raises `UserError` where they are another architecture's."""
        try:
            self.generator.load_state_dict(state.get("generator", {}))
            self.discriminator.load_state_dict(state["discriminator"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"] if "ema" in state else self.ema.state_dict())
        except (RuntimeError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{source}: its weights do not fit: {str(error).splitlines()[-1].strip()}") from error

    def load(self, step: int, state: checkpoint.State, source: str) -> None:
        """Goes back to what `state()` returned after `step`."""
        self.load_networks(state, source)
        try:
            for name, optimizer in self.parts.optimizers.items():
                moments = {int(i): moment for i, moment in state.get("optimizer", {}).get(name, {}).items()}
                optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
                lay_out(optimizer)
            penalties = state.get("penalties", {})  # in no order of their own
            self.penalties = {k: self._to_device(penalties[k]) for k in self.parts.regularizers if k in penalties}
            self.evolution = list(state.get("evolution", []))
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{source}: its state does not fit: {str(error).splitlines()[-1].strip()}") from error
        self.step = step

    def in_turn(self, row: Row) -> Row:
        """What of a row the schedule asks for at its step, and not only because the run ended there."""
        if row["step"] == self.settings.steps:
            return row
        sampled = self.settings.sample_every
        every = {"metric": self.settings.evaluate_every, "theory": sampled, "health": sampled, "step": 1}
        return {
            tag: value
            for tag, value in row.items()
            if row["step"] % every.get(tag.partition("/")[0], self.settings.log_every) == 0
        }

    def rule_context(self) -> RuleContext:
        """What the doctor's rules know besides the rows."""
        return RuleContext(
            self.config,
            self.generator,
            self.discriminator,
            self.parts.loss,
            self.parts.regularizers,
            self.learning_rates,
            self.dataset,
            self.reference_losses(),
        )

    def reference_losses(self) -> dict[str, float]:
        """What the losses are where the discriminator cannot tell real from fake."""
        logit = torch.full((1,), self.parts.loss.equilibrium_logit)
        real, fake = self.parts.loss.discriminator_terms(logit, logit)
        generator = self.parts.loss.generator_term(logit, logit)
        return {"discriminator_real": real.item(), "discriminator_fake": fake.item(), "generator": generator.item()}

    # Being stopped

    def ask_to_stop(self) -> None:
        """Has `fit` save and end after the step under way."""
        self._stop = True

    def _asked_to_stop(self) -> bool:
        # Asking the other processes makes them wait for each other: only where a logged step does so anyway.
        if self.ranks.size > 1 and not self._is_time(self.settings.log_every, self.step):
            return False
        return self.ranks.any(self._stop)


class Clock:
    """Speed since the last pause, and the time since the beginning."""

    def __init__(self, step: int) -> None:
        self._begun = time.perf_counter()
        self.restart(step)

    def restart(self, step: int) -> None:
        """Leaves out of the speed what was not training: logging, sampling, saving."""
        self._step, self._since = step, time.perf_counter()

    def speed(self, step: int, batch_size: int) -> Row:
        """Images a second, and seconds since the run (or its continuation) began."""
        now = time.perf_counter()
        images = (step - self._step) * batch_size
        return {"speed/images_per_second": images / (now - self._since), "time/seconds": now - self._begun}


def best(rows: Sequence[Row], tag: str, goal: Goal) -> Row | None:
    """The row with the best value of `tag`, the newest of several as good; None where no row has it."""
    sign = 1 if goal == "max" else -1
    return max((row for row in rows if tag in row), key=lambda row: (sign * row[tag], row["step"]), default=None)
