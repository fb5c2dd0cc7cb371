"""The error tree. Every message is one sentence to a person: what is wrong, where, and what to do.

GeorefineError                 exit code 1: the work failed
├── SourceError                the source folder cannot be read as University-1652 / GeoText-1652
├── DatasetError               a data set version is missing, incomplete or damaged
├── RefinerError               the chosen caption refiner cannot be used
├── TrainingError              training or evaluation cannot go on (nothing to train on, NaN, out of memory, …)
├── AccountingError            rows in differ from rows written plus rows rejected: a defect of ours, never ignored
└── UsageError                 exit code 2: wrong usage
    └── ConfigError            a configuration key is unknown or its value is out of range; names the key
"""


class GeorefineError(Exception):
    """Base of every error that a person can act on."""

    exit_code = 1


class SourceError(GeorefineError):
    """The source folder cannot be read as University-1652 / GeoText-1652."""


class DatasetError(GeorefineError):
    """A data set version is missing, incomplete or damaged."""


class RefinerError(GeorefineError):
    """The chosen caption refiner cannot be used."""


class TrainingError(GeorefineError):
    """Training or evaluation cannot go on."""


class AccountingError(GeorefineError):
    """Rows in differ from rows written plus rows rejected."""


class UsageError(GeorefineError):
    """The command was used wrongly."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key is unknown or its value is wrong.

    Attributes:
        key: dotted path of the offending key, for example ``augment.variants``.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"Configuration key '{key}': {problem}")
        self.key = key
