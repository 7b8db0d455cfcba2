"""aglowd carries LOFAR survey fields from the Long Term Archive to archived results."""

__version__ = "0.1.0"
