"""Every exception headrace raises, drawn.

    HeadraceError
    |-- DefinitionError          a definition is wrong: says which one, which field, and the fix
    |   `-- SignatureMismatch    a model does not fit its pipeline: names the first difference
    |-- SettingsError            a setting is missing, unknown, refused or of the wrong kind
    |-- TransientError           the world is away for a moment (Kafka, Redis): the same call may succeed later
    |   `-- UnstableOffsets      a transaction that holds offsets of the partition is still pending
    |-- FatalError               this process cannot go on
    |   |-- SlotTaken            another process runs with our slot: names its host and pid
    |   |-- TooManyRefused       more than the allowed share of records became dead letters: the fault is likely ours
    |   |-- StoreRefused         the store answers but must not be used (eviction policy, version, rights)
    |   `-- BrokerRefused        the broker answers but refuses for good (credentials, ACL, topic missing, record too large)
    |-- PartitionGivenUp         one partition cannot be served; the others go on
    |-- PartitionMoved           the store says that a partition is no longer ours or not where we left it: recover it
    |-- SnapshotRefused          a file of states cannot be taken or used: says why, and that nothing was changed
    |-- LookupRefused            a look-up asks for something that cannot be answered exactly
    |-- RegistryRefused          a command for the registry of models is not taken: says why, and the next command
    `-- ArtifactRefused          the bytes of a model version cannot be had as they were registered
        |-- ArtifactMissing      the store holds none under that sha256
        `-- ArtifactDamaged      the store holds others under that sha256

A bad record is never an exception: it becomes a dead letter (`types.Reason`). The loop retries `TransientError` and recovers
from `PartitionMoved`; any other ends the process with one clear line.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The root of every exception raised on purpose."""


class DefinitionError(HeadraceError):
    """A definition is wrong; the text names the definition, the field and the fix."""


class SignatureMismatch(DefinitionError):
    """A model's signature does not fit its pipeline; the text names the first difference."""


class SettingsError(HeadraceError):
    """A setting is missing, unknown, refused or of the wrong kind."""


class TransientError(HeadraceError):
    """The world is away for a moment; the same call may succeed later."""


class UnstableOffsets(TransientError):
    """A pending transaction holds offsets of the partition, so its committed offset is not known yet."""


class FatalError(HeadraceError):
    """This process cannot go on."""


class SlotTaken(FatalError):
    """Another process runs with our slot."""


class TooManyRefused(FatalError):
    """More than the allowed share of a window of records became dead letters."""


class StoreRefused(FatalError):
    """The store answers but must not be used as it is."""


class BrokerRefused(FatalError):
    """The broker answers but refuses for good."""


class PartitionGivenUp(HeadraceError):
    """One partition cannot be served: the text says why and names the next command."""


class PartitionMoved(HeadraceError):
    """The store says that a partition is no longer ours, or not where we left it."""


class SnapshotRefused(HeadraceError):
    """A file of states cannot be taken or used as it is."""


class LookupRefused(HeadraceError):
    """A look-up asks for something that cannot be answered exactly."""


class RegistryRefused(HeadraceError):
    """A command for the registry of models is not taken; the text says why and names the next command."""


class ArtifactRefused(HeadraceError):
    """The bytes of a model version cannot be had as they were registered; a version that is live goes on."""


class ArtifactMissing(ArtifactRefused):
    """The store holds no bytes under that sha256."""


class ArtifactDamaged(ArtifactRefused):
    """The store holds other bytes under that sha256."""
