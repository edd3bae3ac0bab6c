"""The demonstration: a real small model, the gateway in front of it, two official clients, and what the ledger kept.

``model`` serves the model in a process of its own, ``processes`` starts and stops what runs beside us, ``clients``
makes the calls, ``printing`` shows records to people, and ``walk`` tells the story from start to end.
"""
