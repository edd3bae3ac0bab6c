"""How the operating system sees a gateway: its processes, its logs, its pauses."""
