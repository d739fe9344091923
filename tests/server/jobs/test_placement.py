"""A device for each running job."""

from server.jobs.placement import Placement


def test_jobs_wait_where_fewer_devices_are_left_than_ran() -> None:
    placement = Placement(["0", "1"])
    assert placement.most(3) == 2
    running = ["a", "b", "c"]
    assert [placement.place(job, running) for job in running] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "1"},
        None,
    ]
    assert placement.place("c", ["b", "c"]) == {"CUDA_VISIBLE_DEVICES": "0"}
    assert placement.place("b", ["b", "c"]) == {"CUDA_VISIBLE_DEVICES": "1"}


def test_without_devices_every_job_has_a_place() -> None:
    assert Placement().most(3) == 3
    assert Placement().place("a", ["b"]) == {}
