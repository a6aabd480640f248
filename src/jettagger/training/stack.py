"""The weights of several networks in one tensor each, and every network a view of its own part.

A member's own model, running mean and optimiser stay usable: validation, checkpoints and the best epoch are those of
a single training.

Shapes: M members, P parameters, and what a single network's tensor has.
"""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jettagger.batch import Inputs
from jettagger.models.parts.model import JetModel
from jettagger.training.l1 import penalise
from jettagger.training.optimisers import is_matrix, step_with_rates
from jettagger.training.state import TrainingState


class Stack:
    """Networks of equal architecture, after equally many steps.

    From then on `parameters` and `buffers` are what is trained, and the members' models look at them.
    """

    def __init__(self, states: Sequence[TrainingState]) -> None:
        self.states = tuple(states)
        models = [state.model for state in states]
        assert isinstance(models[0], JetModel)
        self.template: JetModel = copy.deepcopy(models[0]).to("meta").train()
        self.template.channels_last = False
        self.parameters = {
            name: _stacked_parameter([dict(model.named_parameters())[name] for model in models])
            for name, _ in models[0].named_parameters()
        }
        self.buffers = {name: _stacked_buffer(models, name) for name, buffer in models[0].named_buffers()}
        self._places = [(*_place(self.template, name), name) for name in (*self.parameters, *self.buffers)]
        self.optimiser = self._stacked_optimiser()
        self._rates: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.states)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What `call` takes, of all members."""
        return {**self.parameters, **self.buffers}

    def call(self, tensors: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        """Logits with these weights and buffers: `functional_call` without its search for their places."""
        for place, last, name in self._places:
            place[last] = tensors[name]
        return self.template(inputs)

    def add_l1(self, strength: float) -> None:
        """See `l1.add_l1`: a penalty on weights between layers, whose own shape is a matrix."""
        if strength:
            penalise([stacked for stacked in self.parameters.values() if is_matrix(stacked[0])], strength)

    @torch.no_grad()
    def clip(self, limit: float | None) -> Tensor:
        """The norm of each member's gradient, (M,); where it exceeds the limit the gradient is scaled down to it."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norms_PM = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients])
        norms_M: Tensor = torch.linalg.vector_norm(norms_PM, dim=0)
        if limit is not None:
            share_M = limit / norms_M.clamp(min=limit)
            for gradient in gradients:
                gradient.mul_(share_M.view(-1, *(1 for _ in gradient.shape[1:])))
        return norms_M

    def clear_gradients(self) -> None:
        """Before the next backward pass."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def publish(self) -> None:
        """Lets the members' optimisers look at their part of what the stack's optimiser remembers."""
        names = {stacked: name for name, stacked in self.parameters.items()}
        for member, state in enumerate(self.states):
            own = dict(state.model.named_parameters())
            for stacked, moments in self.optimiser.state.items():
                state.optimiser.state[own[names[stacked]]] = {
                    key: _part(value, stacked.shape, member) for key, value in moments.items()
                }
            for mine, group in zip(state.optimiser.param_groups, self.optimiser.param_groups, strict=True):
                mine.update({key: value for key, value in group.items() if key != "params"})
                if self._rates:
                    mine["lr"] = self._rates[member]

    def step(self, rates: Sequence[float]) -> None:
        """One step of the optimiser, each member at its own learning rate; without rates none is made."""
        if not rates:
            return
        self._rates = tuple(rates)
        if len(set(rates)) > 1:
            first = next(iter(self.parameters.values()))
            step_with_rates(self.optimiser, torch.tensor(rates, dtype=torch.float64, device=first.device))
            return
        for group in self.optimiser.param_groups:
            group["lr"] = rates[0]
        self.optimiser.step()

    def _stacked_optimiser(self) -> torch.optim.Optimizer:
        """The members' optimiser over the stacked weights: it is elementwise, and each goes on as it would alone."""
        first = self.states[0].optimiser
        name_of = {parameter: name for name, parameter in self.states[0].model.named_parameters()}
        stacked = copy.copy(first)
        stacked.param_groups = [
            {**group, "params": [self.parameters[name_of[p]] for p in group["params"]]}
            for group in first.param_groups
        ]
        stacked.state = defaultdict(dict)
        members = [dict(state.model.named_parameters()) for state in self.states]
        for name, parameter in self.parameters.items():
            moments = [
                state.optimiser.state.get(own[name], {})
                for state, own in zip(self.states, members, strict=True)
            ]
            if moments[0]:
                shape = parameter.shape[1:]
                stacked.state[parameter] = {
                    key: _joined([moment[key] for moment in moments], shape) for key in moments[0]
                }
        return stacked


def _place(model: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Where a module keeps a parameter or buffer."""
    path, _, last = name.rpartition(".")
    owner = model.get_submodule(path)
    return (owner._parameters if last in owner._parameters else owner._buffers), last


def _stacked_parameter(parameters: Sequence[nn.Parameter]) -> Tensor:
    stacked = torch.stack([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, stacked, strict=True):
        parameter.data = part
    return stacked.requires_grad_(parameters[0].requires_grad)


def _stacked_buffer(models: Sequence[nn.Module], name: str) -> Tensor:
    path, _, last = name.rpartition(".")
    owners = [model.get_submodule(path) for model in models]
    stacked = torch.stack([owner.get_buffer(last) for owner in owners])
    for owner, part in zip(owners, stacked, strict=True):
        owner._buffers[last] = part
    return stacked


def _joined(values: Sequence[Any], shape: torch.Size) -> Any:
    """Moments of all members: one tensor where they are a number a weight, else what all have in common."""
    first = values[0]
    if not isinstance(first, Tensor):
        assert all(value == first for value in values), "members have done equally many steps"
        return first
    if first.shape == shape and first.dim() > 0:
        return torch.stack(list(values))
    assert all(torch.equal(value, first) for value in values), "members have done equally many steps"
    return first.clone()


def _part(value: Any, shape: torch.Size, member: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value[member] if value.shape == shape else value.clone()
