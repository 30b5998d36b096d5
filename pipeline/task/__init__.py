"""Tasks: named categorical question sets, each described by one YAML file."""

from .registry import describe_task, load_task, split_name, task_names, validate_task_name
from .task import Task

__all__ = ["Task", "describe_task", "load_task", "split_name", "task_names", "validate_task_name"]
