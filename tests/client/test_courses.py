"""The course of a task as its worker saw it."""

from __future__ import annotations

from flmq.client.tasks.courses import Courses
from flmq.common.times import WorkerTimes


def never(task_id: str) -> float:
    raise AssertionError(f"{task_id} came to this process")


def test_a_task_from_its_queue_to_its_end() -> None:
    courses = Courses()
    courses.taken("t", 1.0, again=False)
    courses.begun("t", 2.0, never)
    courses.died("t", 0)
    courses.loaded("t", 3.0)
    assert courses.ended("t", 4.5) == WorkerTimes(1000, 2000, 3000, 4500, None, 1, 0)


def test_each_redelivery_is_counted_and_the_first_time_stays() -> None:
    courses = Courses()
    courses.taken("t", 1.0, again=True)
    courses.taken("t", 2.0, again=True)
    courses.begun("t", 3.0, never)
    assert courses.ended("t", 4.0) == WorkerTimes(1000, 3000, None, 4000, None, 3, None)


def test_a_task_of_an_earlier_process_came_when_it_was_written_down() -> None:
    courses = Courses()
    courses.begun("t", 100.0, {"t": 60.0}.__getitem__)
    courses.died("t", 1)
    assert courses.ended("t", 101.0) == WorkerTimes(40_000, 100_000, None, 101_000, None, 1, 1)


def test_tasks_that_are_never_begun_take_no_memory_for_ever() -> None:
    courses = Courses(most=2)
    for each in "abc":
        courses.taken(each, 1.0, again=False)
    assert courses.ended("a", 2.0) == WorkerTimes(training_ended_ms=2000)
    assert courses.ended("c", 2.0).taken_ms == 1000
