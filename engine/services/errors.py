"""What is raised when a service of this machine cannot be started or does not answer."""


class ServiceError(Exception):
    """A service cannot run here. The message says what, where, and what to do now."""
