"""Why a job fails by its own fault or its data's; anything else is a bug and ends with a traceback.

TrainingError
├── InvalidTrainingData  (ValueError)    the file is at fault; the message lists line numbers
├── TrainingDiverged     (RuntimeError)  the loss left the real numbers, or rose above where it began
├── NothingToLearn       (RuntimeError)  every answer is rewarded alike
├── GraderFailed         (RuntimeError)  the grader, or its judge, fails on one answer after the other
├── DiskFull             (RuntimeError)  there is no room for a checkpoint
├── data.jsonl:          NotJsonLines (ValueError)
├── render:              AnswersApart (ValueError)
└── graders:             InvalidPath, InvalidFormula, TooLong, BrokenSource, JudgeRefused (ValueError);
                         JudgeUnavailable, SandboxUnavailable (RuntimeError)
Interrupted  somebody asked the trainer to stop; it saved a checkpoint and can go on
"""


class TrainingError(Exception):
    """Base; `code` and `param` are those of the failed job's error object in OpenAI's API."""

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
    """The loss became NaN or infinite."""

    code = "training_diverged"


class NothingToLearn(TrainingError, RuntimeError):
    """The grader gives all first answers the same reward: no step would change anything."""

    code = "no_reward_variance"


class GraderFailed(TrainingError, RuntimeError):
    """The grader fails on one answer after the other: there is nothing to learn from."""

    code = "grader_failed"


class DiskFull(TrainingError, RuntimeError):
    """No room was left on the disk."""

    code = "disk_full"


class Interrupted(Exception):
    """The training was asked to stop, and did after saving."""
