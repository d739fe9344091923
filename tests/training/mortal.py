"""`python -m tests.training.mortal --wait`: the real spawner, whose trainers can be told when to die.

A trainer's environment may hold a `Death` as JSON. Without it, the trainer is the same as `python -m training`.
"""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Any

from training import __main__ as trainer
from training.directory import JobDirectory

VARIABLE = "TUNEPORT_TEST_DEATH"


@dataclass(frozen=True)
class Death:
    """When a trainer dies.

    Attributes:
        step: the signal comes in the step after this one.
        sign: SIGKILL, or SIGTERM as for a pause.
        save: SIGKILL comes in the save after this step, when half of `file` is written.
        trained: SIGKILL comes after the training, before its end is recorded.
        always_save: save a checkpoint after each step, as if steps took a minute.
        prove: whether to run the proof, which takes most of a tiny job's time.
    """

    step: int | None = None
    sign: int = signal.SIGKILL
    save: int | None = None
    file: str = "optimizer.pt"
    trained: bool = False
    always_save: bool = False
    prove: bool = False

    def environment(self) -> dict[str, str]:
        """The environment for the trainer."""
        return {VARIABLE: json.dumps(asdict(self))}


def work(directory: JobDirectory, *args: Any) -> int:
    """Run by the spawner in a fork."""
    if wanted := os.environ.get(VARIABLE):
        _arm(Death(**json.loads(wanted)))
    return _work(directory, *args)


def _arm(death: Death) -> None:
    import torch
    from transformers import Trainer

    from training.methods.loop import progress

    batches, save = Trainer.get_batch_samples, torch.save

    def get_batch_samples(self: Any, *args: Any) -> Any:
        if self.state.global_step == death.step:
            os.kill(os.getpid(), death.sign)
        return batches(self, *args)

    def half(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        save(content, file, *args, **kwargs)
        if death.save is not None and str(file).endswith(f"checkpoint-{death.save}/{death.file}"):
            os.truncate(file, os.path.getsize(file) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)  # tests share the cores, and two threads would wait for each other
    Trainer.get_batch_samples = get_batch_samples  # pyright: ignore[reportAttributeAccessIssue]
    torch.save = half
    if death.always_save:
        progress.SAVE_SECONDS = 0.0
    if death.trained:
        trainer._prove = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    elif not death.prove:
        trainer._prove = lambda trained, *_: trained.result


_work = trainer.work
trainer.work = work

if __name__ == "__main__":
    sys.exit(trainer.main())
