"""What the service says when it cannot answer: one sentence each."""

from __future__ import annotations

__all__ = [
    "ModelNotConfiguredError",
    "ModelReplyError",
    "NothingFoundError",
    "QuestionError",
    "ServiceError",
    "SettingError",
]


class ServiceError(Exception):
    """Something that the user is told in one sentence.

    Attributes:
        exit_code: What the command ends with.
    """

    exit_code = 1


class QuestionError(ServiceError):
    """The question cannot be searched for."""

    exit_code = 2


class SettingError(ServiceError):
    """A setting in the environment has a value that is not allowed."""

    exit_code = 2


class NothingFoundError(ServiceError):
    """No passage has anything to do with the question."""


class ModelNotConfiguredError(ServiceError):
    """There is no model to ask."""


class ModelReplyError(ServiceError):
    """The model replied, but not with a whole answer."""
