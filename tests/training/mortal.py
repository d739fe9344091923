"""`python -m tests.training.mortal --wait`: the spawner as it is, whose trainers can be told where to end.

`DEATHS` in a trainer's environment holds JSON of `Death`. Without it, a trainer is what `python -m training` starts.
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
    """Where a trainer ends.

    Attributes:
        step: the signal comes in the middle of the step after so many.
        sign: SIGKILL, or SIGTERM as for a pause.
        save: SIGKILL comes in the save after so many steps, half of `file` written.
        trained: SIGKILL comes when all is trained, and nothing said of it yet.
        always_save: a checkpoint after each step, as where steps take a minute.
        prove: whether the result is judged at the end, which takes most of a tiny job's time.
    """

    step: int | None = None
    sign: int = signal.SIGKILL
    save: int | None = None
    file: str = "optimizer.pt"
    trained: bool = False
    always_save: bool = False
    prove: bool = False

    def environment(self) -> dict[str, str]:
        """For the trainer."""
        return {VARIABLE: json.dumps(asdict(self))}


def work(directory: JobDirectory, *args: Any) -> int:
    """What the spawner runs in a fork."""
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

    torch.set_num_threads(1)  # the tests' cores are shared, and two threads wait for each other
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
