"""Tasks: named categorical question sets, each described by one YAML file."""

from .registry import describe_task, find_source, is_here, load_example, load_task, task_names, validate_task
from .source import TaskSource, split_name
from .task import Task

__all__ = [
    "Task",
    "TaskSource",
    "describe_task",
    "find_source",
    "is_here",
    "load_example",
    "load_task",
    "split_name",
    "task_names",
    "validate_task",
]
