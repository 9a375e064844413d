"""The checker that `conftest` puts on every function of puna: beartype, with an int welcome as a float (PEP 484)."""

from beartype import BeartypeConf, beartype

__all__ = ["typecheck"]

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
