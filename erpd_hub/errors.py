"""The errors a user sees: one line, `<where>: expected <what>, got <value>; <what to do>`.

Everything else that is raised is a bug in this package or in the machine and keeps its traceback.
"""


class ErpdError(Exception):
    """A failure with a message for people; the command line prints it without a traceback."""

    exit_code = 1


class ConfigError(ErpdError):
    """A recipe, reference or option that cannot be carried out; nothing was started."""

    exit_code = 2


class UnknownRecipe(ConfigError):
    """No recipe has this name."""

    def __init__(self, name: str, message: str, hint: str) -> None:
        """`hint` is what the name may have been meant to be, after the message."""
        super().__init__(message + hint)
        self.name = name
        self.message = message


class ArtifactError(ErpdError):
    """An artifact that is missing, unfinished, altered or of the wrong kind."""

    exit_code = 2


class StageError(ErpdError):
    """A stage that cannot go on with these inputs (all rollouts right, a non-finite loss, ...)."""


class HubError(ErpdError):
    """The Hub endpoint refused or went away; finished work stays in the work directory."""


def require_extra(extra: str, feature: str) -> ErpdError:
    """The error for a missing optional dependency: names the feature and the install command."""
    return ErpdError(f"{feature} needs packages that are not installed; run: pip install 'erpd-hub[{extra}]'")
