"""The experiment in Lightning; see problem.py.

As its documentation recommends: `Trainer(strategy="ddp")`, `ModelCheckpoint` with
`save_last`, `fit(ckpt_path="last")`, `seed_everything`, and torchdata's stateful data
loader and sampler, so that a run can go on in the middle of an epoch.
"""

# mypy: ignore-errors

from __future__ import annotations

import csv

import lightning
import problem
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

options = problem.parse()
lightning.seed_everything(0, workers=True, verbose=False)


train, held_out = problem.examples(options)
start = problem.initial_weights()
first = torch.nn.Linear(problem.FEATURES, problem.HIDDEN)
last = torch.nn.Linear(problem.HIDDEN, 1)
norm = torch.nn.BatchNorm1d(
    problem.HIDDEN, eps=problem.EPSILON, momentum=1 - problem.BATCH_NORM_MOMENTUM
)
for layer, kernel, bias in ((first, "w1", "b1"), (last, "w2", "b2")):
    layer.weight.data = torch.from_numpy(start[kernel].T.copy())
    layer.bias.data = torch.from_numpy(start[bias])


class Regression(lightning.LightningModule):
    """[B, 8] -> [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            first,
            norm if options.batch_norm else torch.nn.Identity(),
            torch.nn.ReLU(),
            torch.nn.Dropout(options.dropout),
            last,
        )

    def squared_error(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Returns the mean squared error of a batch."""
        x, y = batch
        return torch.nn.functional.mse_loss(self.network(x)[:, 0], y)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Returns the loss of a batch, and logs it."""
        loss = self.squared_error(batch)
        self.log(
            "loss",
            loss,
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch[1]),
        )
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """Logs the loss of a batch, and the number of its examples."""
        count = len(batch[1])
        loss = self.squared_error(batch)
        self.log("val_loss", loss, sync_dist=True, batch_size=count)
        self.log("examples", float(count), reduce_fx="sum", sync_dist=True)

    def train_dataloader(self) -> StatefulDataLoader:
        """Returns the training batches of this process."""
        return self.loader(train, options.shuffle)

    def val_dataloader(self) -> StatefulDataLoader:
        """Returns the held-out batches of this process."""
        return self.loader(held_out, False)

    def loader(self, data: problem.Arrays, shuffle: bool) -> StatefulDataLoader:
        """Returns the batches of a data set for this process."""
        dataset = TensorDataset(*(torch.from_numpy(data[name]) for name in ("x", "y")))
        # The sampler that Lightning would put in shuffles the training set always.
        sampler = StatefulDistributedSampler(
            dataset, self.trainer.world_size, self.trainer.global_rank, shuffle
        )
        batch_size = options.batch_size // options.replicas
        return StatefulDataLoader(dataset, batch_size, sampler=sampler)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimizer."""
        return torch.optim.SGD(
            self.parameters(), problem.LEARNING_RATE, problem.MOMENTUM
        )


class Kill(Checkpoint):  # these are called after all other callbacks, in their order
    """Kills the run at the step that was asked for."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Called after each step."""
        problem.kill_if_due(options, trainer.global_step)


run = options.directory / "run"
savers = [ModelCheckpoint(run / "epochs", save_last=True, save_on_train_epoch_end=True)]
if options.save_every:
    savers.append(
        ModelCheckpoint(
            run / "steps", save_last=True, every_n_train_steps=options.save_every
        )
    )
resumes = run.exists()
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=options.replicas,
    strategy="ddp" if options.replicas > 1 else "auto",
    sync_batchnorm=False,  # torch.nn.SyncBatchNorm refuses tensors on the CPU
    max_epochs=options.epochs,
    num_sanity_val_steps=0,
    logger=CSVLogger(options.directory, name="logs"),
    callbacks=[*savers, Kill()],
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Regression(), ckpt_path="last" if resumes else None)

if trainer.is_global_zero:
    rows = []
    for log in sorted((options.directory / "logs").glob("*/metrics.csv")):
        with log.open() as file:
            for row in csv.DictReader(file):
                if row["loss"]:
                    epoch = int(row["epoch"]) + 1
                    rows.append({"epoch": epoch, "loss": float(row["loss"])})
    problem.finish(
        options,
        {
            "w1": first.weight.detach().numpy().T,
            "b1": first.bias.detach().numpy(),
            "gamma": norm.weight.detach().numpy(),
            "beta": norm.bias.detach().numpy(),
            "mean": norm.running_mean.numpy(),
            "variance": norm.running_var.numpy(),
            "w2": last.weight.detach().numpy().T,
            "b2": last.bias.detach().numpy(),
        },
        {
            "loss": float(trainer.callback_metrics["val_loss"]),
            "examples": float(trainer.callback_metrics["examples"]),
        },
        rows,
    )
