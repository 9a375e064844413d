"""What every other package stands on: errors, records, settings, artifacts, seeds, metrics and progress."""

__all__: list[str] = []
