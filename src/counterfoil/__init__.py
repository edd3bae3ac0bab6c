"""Counterfoil keeps the counterfoil of every generation that passes through it.

The rooms, from the street to the vault: ``cli`` and ``compose`` start it, ``api`` and ``web`` answer people,
``gateway`` relays calls, ``surfaces`` and ``providers`` know the protocols, ``pricing`` turns usage into lines,
``ledger`` keeps the records, ``record`` says what a record is. ``docs/architecture.md`` draws both.
"""

__version__ = "0.1.0"
