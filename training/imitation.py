"""Online imitation (`objective: imitation`): the student learns what the BabyAI bot would have done.

The bot says at every state what it would have done; the student learns from those labels by backpropagation through the
`unroll_len` steps of a rollout.

The bot walks along, or a student that knows nothing would never see what comes after the first door: each step is the
bot's with probability `bot_share` (DAgger's beta: Ross, Gordon, Bagnell 2011, arXiv 1011.0686). One environment in
eight is the student's alone, and what is said of success is counted there.
"""

from typing import Any

from training.losses import imitation_losses
from training.rollout import Rollout
from training.trainer import Trainer


class ImitationTrainer(Trainer):
    """See the module's docstring."""

    def __init__(self, config: dict[str, Any]):
        self.bot_share, self.temperature = config["bot_share"], config["student_temperature"]
        super().__init__(config)

    def learn(self, rollout: Rollout) -> None:
        """Make one gradient step on what the bot would have done along a rollout."""
        output = rollout.unroll(rollout.policy, rollout.missions)
        measured = imitation_losses(self.agent.policy, output, rollout, self.config)
        self.gradient_step(measured["loss"])
        self.note(measured)
        self.note_tasks(output, rollout.label)
        self.update += 1
