"""Which accelerator a job trains on."""

from collections.abc import Collection, Sequence


class Placement:
    """Gives each running job one device; without a list of devices, trainers see what the server sees."""

    def __init__(self, devices: Sequence[str] = ()) -> None:
        """Make one for these CUDA devices."""
        self._devices = list(devices)
        self._placed: dict[str, str] = {}

    def most(self, wanted: int) -> int:
        """How many jobs may run at once."""
        return min(wanted, len(self._devices)) if self._devices else wanted

    def place(self, job_id: str, running: Collection[str]) -> dict[str, str] | None:
        """The environment that puts the job on a device that no running job has.

        None: no device is free, as after a restart with fewer devices than running jobs.
        """
        if not self._devices:
            return {}
        taken = {self._placed.get(other) for other in running if other != job_id}
        free = [device for device in self._devices if device not in taken]
        if not free:
            return None
        self._placed[job_id] = free[0]
        return {"CUDA_VISIBLE_DEVICES": free[0]}
