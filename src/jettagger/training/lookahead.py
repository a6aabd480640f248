"""Lookahead: slow weights that follow an optimiser's, and lead them back to themselves. arXiv:1907.08610."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Lookahead(torch.optim.Optimizer):
    """Every `steps` steps of `inner`: slow ← slow + share·(fast - slow), then fast ← slow.

    The slow weights begin as the weights before the first step. They lie in the inner optimiser's state, as "slow",
    and the count of its steps in each group, so that its `state_dict` holds everything.
    """

    def __init__(self, inner: torch.optim.Optimizer, steps: int, share: float) -> None:
        # The base class would set up groups and state of its own: both are the inner optimiser's.
        self.inner, self.steps, self.share = inner, steps, share
        self.defaults = inner.defaults
        for group in inner.param_groups:
            group["steps_made"] = 0

    # `load_state_dict` of the inner optimiser replaces both.
    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the inner optimiser."""
        return self.inner.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.inner.param_groups = groups

    @property
    def state(self) -> Any:
        """That of the inner optimiser."""
        return self.inner.state

    @state.setter
    def state(self, state: Any) -> None:
        self.inner.state = state

    # A copy is given groups and state of its own: those of the one that it is copied from must stay.
    def __copy__(self) -> "Lookahead":
        copied = Lookahead.__new__(Lookahead)
        copied.__dict__.update(self.__dict__, inner=copy.copy(self.inner))
        return copied

    def state_dict(self) -> dict[str, Any]:
        """The inner optimiser's, with slow weights and counts."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.inner.load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients."""
        self.inner.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """A step of the inner optimiser, and after every `steps` of them one of the slow weights."""
        assert closure is None, "the trainer has its gradients when it makes a step"
        self.remember()
        self.inner.step()
        self.pull()

    @torch.no_grad()
    def remember(self) -> None:
        """Before a step: weights that have no slow ones yet leave a copy of themselves."""
        if self.param_groups[0]["steps_made"] == 0:
            self._slow = {p: p.detach().clone() for group in self.param_groups for p in group["params"]}

    @torch.no_grad()
    def pull(self) -> None:
        """After a step of the inner optimiser: counts it, and leads the weights back where it is time."""
        for group in self.param_groups:
            if group["steps_made"] == 0:
                for p in group["params"]:
                    self.state[p]["slow"] = self._slow.pop(p)
            group["steps_made"] += 1
            if group["steps_made"] % self.steps == 0:
                slow: list[Tensor] = [self.state[p]["slow"] for p in group["params"]]
                torch._foreach_lerp_(slow, group["params"], self.share)
                torch._foreach_copy_(group["params"], slow)
