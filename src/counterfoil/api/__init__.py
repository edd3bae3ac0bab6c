"""The control plane: generations, keys, teams, prices and health over HTTP."""
