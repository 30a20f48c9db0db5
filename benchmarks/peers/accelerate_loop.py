"""The experiment in Accelerate; see problem.py.

As its documentation recommends: `gather_for_metrics`, which drops the duplicates of the
last batch; `save_state` and `load_state`, which keep the states of the random number
generators; `register_for_checkpointing`; and a seedable sampler with `set_epoch` and
`skip_first_batches`, so that a run can go on in the middle of an epoch.
"""

# mypy: ignore-errors

from __future__ import annotations

import problem
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.utils.data import DataLoader, TensorDataset

options = problem.parse()
set_seed(0)
accelerator = Accelerator(
    cpu=True,
    dataloader_config=DataLoaderConfiguration(
        split_batches=True,
        use_seedable_sampler=True,
        data_seed=0,
    ),
)
assert accelerator.num_processes == options.replicas


class Progress:
    """How far the run has come; saved and restored with the rest."""

    def __init__(self) -> None:
        self.epoch, self.step, self.total, self.count = 0, 0, 0.0, 0
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, object]:
        """Returns the attributes."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restores the attributes."""
        vars(self).update(state)


def loader(data: problem.Arrays, shuffle: bool) -> DataLoader:
    """Returns global batches; Accelerate splits them."""
    tensors = TensorDataset(torch.from_numpy(data["x"]), torch.from_numpy(data["y"]))
    return DataLoader(tensors, batch_size=options.batch_size, shuffle=shuffle)


train, held_out = problem.examples(options)
start = problem.initial_weights()
first = torch.nn.Linear(problem.FEATURES, problem.HIDDEN)
last = torch.nn.Linear(problem.HIDDEN, 1)
norm = torch.nn.BatchNorm1d(
    problem.HIDDEN, eps=problem.EPSILON, momentum=1 - problem.BATCH_NORM_MOMENTUM
)
network = torch.nn.Sequential(
    first,
    norm if options.batch_norm else torch.nn.Identity(),
    torch.nn.ReLU(),
    torch.nn.Dropout(options.dropout),
    last,
)
for layer, kernel, bias in ((first, "w1", "b1"), (last, "w2", "b2")):
    layer.weight.data = torch.from_numpy(start[kernel].T.copy())
    layer.bias.data = torch.from_numpy(start[bias])
optimizer = torch.optim.SGD(
    network.parameters(), problem.LEARNING_RATE, problem.MOMENTUM
)
model, optimizer, train_loader, test_loader = accelerator.prepare(
    network, optimizer, loader(train, options.shuffle), loader(held_out, False)
)
progress = Progress()
accelerator.register_for_checkpointing(progress)


def squared_error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Returns the squared error of each example."""
    return (model(x)[:, 0] - y) ** 2


def evaluate() -> dict[str, float]:
    """Evaluates the held-out set."""
    model.eval()
    with torch.no_grad():
        errors = [
            accelerator.gather_for_metrics(squared_error(x, y)) for x, y in test_loader
        ]
    every = torch.cat(errors)
    return {"loss": every.mean().item(), "examples": len(every)}


def save() -> None:
    """Saves the run."""
    accelerator.save_state(str(options.directory / f"run/step_{progress.step:06d}"))


saved = sorted(options.directory.glob("run/step_*"))
if saved:
    accelerator.load_state(str(saved[-1]))
evaluated = {}
while progress.epoch < options.epochs:
    model.train()
    train_loader.set_epoch(progress.epoch)
    done = progress.step - progress.epoch * len(train_loader)
    for x, y in accelerator.skip_first_batches(train_loader, done):
        errors = squared_error(x, y)
        accelerator.backward(errors.mean())
        optimizer.step()
        optimizer.zero_grad()
        gathered = accelerator.gather_for_metrics(errors.detach())
        progress.total += gathered.sum().item()
        progress.count += len(gathered)
        progress.step += 1
        if options.save_every and progress.step % options.save_every == 0:
            save()
        problem.kill_if_due(options, progress.step)
    progress.epoch += 1
    progress.rows.append(
        {"epoch": progress.epoch, "loss": progress.total / progress.count}
    )
    progress.total, progress.count = 0.0, 0
    evaluated = evaluate()
    save()

if accelerator.is_main_process:
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
        evaluated,
        progress.rows,
    )
