"""Failures caused by a job or its data; any other error is a bug, and ends with a traceback.

TrainingError
├── InvalidTrainingData  (ValueError)    the file is at fault; the message lists line numbers
├── TrainingDiverged     (RuntimeError)  the loss became NaN or infinite, or rose far above its start
├── NothingToLearn       (RuntimeError)  all answers get the same reward
├── GraderFailed         (RuntimeError)  the grader, or its judge, fails on many answers in a row
├── DiskFull             (RuntimeError)  no room on the disk
├── data.jsonl:          NotJsonLines (ValueError)
├── render:              AnswersApart (ValueError)
└── graders:             InvalidPath, InvalidFormula, TooLong, BrokenSource, JudgeRefused (ValueError);
                         JudgeUnavailable, SandboxUnavailable (RuntimeError)
Interrupted  the trainer was asked to stop; it saved a checkpoint and can go on
"""


class TrainingError(Exception):
    """Base; `code` and `param` go into the failed job's error object in OpenAI's API."""

    code = "training_failed"
    param: str | None = None


class InvalidTrainingData(TrainingError, ValueError):
    """The training or validation file cannot be trained on."""

    def __init__(self, message: str, param: str = "training_file") -> None:
        super().__init__(message, param)
        self.param = param
        self.code = f"invalid_{param}"

    def __str__(self) -> str:
        return str(self.args[0])


class TrainingDiverged(TrainingError, RuntimeError):
    """The loss became NaN or infinite, or rose far above its start."""

    code = "training_diverged"


class NothingToLearn(TrainingError, RuntimeError):
    """All first answers get the same reward, so that no step would change anything."""

    code = "no_reward_variance"


class GraderFailed(TrainingError, RuntimeError):
    """The grader fails on many answers in a row, so that there is nothing to learn from."""

    code = "grader_failed"


class DiskFull(TrainingError, RuntimeError):
    """No room was left on the disk."""

    code = "disk_full"


class Interrupted(Exception):
    """The training was asked to stop, and did so after saving a checkpoint."""
