"""The one exception root of Blocker and its children.

Contract: a message names what is wrong, where, and the remedy if there is one. It never holds a URL, a host or a path
of a list or of a request, and nothing about a user. Wire status, RCODE and exit code are chosen where the error is
caught.
"""


class BlockerError(Exception):
    """Root of every error that Blocker raises on purpose."""


class InvalidURL(BlockerError, ValueError):  # noqa: N818 - a fixed public name
    """A text is no URL that Blocker can canonicalise; the message says why and never repeats the text."""


class InvalidRule(BlockerError, ValueError):  # noqa: N818 - named as InvalidURL is
    """A text or a set of fields is no rule; the message says why and never repeats the text."""


class SettingsError(BlockerError):
    """The configuration is unusable; the message names the setting, what was found and what is allowed."""


class KeyMaterialError(BlockerError):
    """A lookup or seal key is missing, malformed, readable by others, or not the one this deployment uses."""


class FormatError(BlockerError):
    """A binary file or segment is not what it should be: names the part, expected, got and the remedy."""


class StoreError(BlockerError):
    """The store refused or failed an operation."""


class StoreUnavailable(StoreError):  # noqa: N818 - a state, not a fault of the caller
    """Redis cannot be reached or cannot be used now; whoever reads from it keeps what it has."""


class CommitConflict(StoreError):  # noqa: N818 - the database field's own term
    """Another publish moved the head first; nothing of this one is visible. Read the head again and retry."""


class NotThere(StoreError):  # noqa: N818 - a state, as StoreUnavailable
    """There is no such list, serial, draft or proposal."""


class ChangeConflict(StoreError):  # noqa: N818 - as CommitConflict
    """What a change was built upon is another by now; nothing of it was written. Read it again and retry."""


class SourceError(BlockerError):
    """A list source is misdescribed or its file cannot be read; names the file and the field."""


class FetchError(SourceError):
    """A download failed, was cut, too large or unverified; the old serial stays."""


class UpdateRefused(BlockerError):  # noqa: N818 - an outcome the user must act on
    """An update was parsed but must not be published as it is; the old serial stays."""


class ServeError(BlockerError):
    """A node could not start or listen; names the address and the remedy."""


class AddressInUse(ServeError):  # noqa: N818 - a state that may pass
    """Another program listens there."""


class ReleaseRefused(BlockerError):  # noqa: N818 - an outcome the user must act on
    """Figures about hits must not be published as they were asked for; says what may be."""
